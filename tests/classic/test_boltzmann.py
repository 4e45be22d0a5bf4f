"""Restricted Boltzmann machines by enumeration and beside scikit-learn; pre-training."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.neural_network import BernoulliRBM

import purenets as pn
from purenets import data, losses, metrics, models, optim
from purenets.classic import belief, rbm
from tests.layers.peers import normal


def _machine(visible=4, hidden=3):
    return {
        "kernel": normal(visible, hidden),
        "visible_bias": normal(visible, seed=1),
        "hidden_bias": normal(hidden, seed=2),
    }


def _states(n):
    return jnp.array(list(itertools.product((0.0, 1.0), repeat=n)))


@pytest.mark.covers("M37")
def test_conditionals_free_energy_and_likelihood_are_those_of_the_enumerated_distribution(x64):
    params = jax.tree.map(lambda leaf: leaf.astype(jnp.float64), _machine())
    v, h = _states(4), _states(3)
    weight = jnp.exp(-jax.vmap(lambda a: jax.vmap(lambda b: rbm.energy(params, a, b))(h))(v))
    joint = weight / weight.sum()
    np.testing.assert_allclose(jnp.exp(-rbm.free_energy(params, v)), weight.sum(1), rtol=1e-10)
    np.testing.assert_allclose(rbm.log_likelihood(params, v), jnp.log(joint.sum(1)).mean(), rtol=1e-10)
    up = joint @ h / joint.sum(1, keepdims=True)
    np.testing.assert_allclose(rbm.hidden_given_visible(params, v), up, rtol=1e-10)
    down = joint.T @ v / joint.sum(0)[:, None]
    np.testing.assert_allclose(rbm.visible_given_hidden(params, h), down, rtol=1e-10)


@pytest.mark.covers("M37")
def test_conditionals_agree_with_scikit_learn():
    theirs = BernoulliRBM(3, n_iter=3, random_state=0).fit(np.random.default_rng(0).integers(0, 2, (40, 5)))
    params = {
        "kernel": jnp.asarray(theirs.components_.T),
        "visible_bias": jnp.asarray(theirs.intercept_visible_),
        "hidden_bias": jnp.asarray(theirs.intercept_hidden_),
    }
    v = _states(5)
    np.testing.assert_allclose(
        rbm.hidden_given_visible(params, v), theirs.transform(np.asarray(v)), rtol=1e-4
    )
    np.testing.assert_allclose(
        rbm.free_energy(params, v), theirs._free_energy(np.asarray(v)), rtol=1e-4, atol=1e-5
    )


@pytest.mark.covers("M37")
@pytest.mark.parametrize("steps", [1, 20])
def test_contrastive_divergence_points_up_the_exact_likelihood_and_the_longer_the_better(steps):
    params = jax.tree.map(lambda leaf: 0.3 * leaf, _machine())
    v = _states(4)[jnp.array([0, 15, 15, 12])]
    exact = jax.grad(rbm.log_likelihood)(params, v)
    many = jnp.tile(v, (4000, 1))
    found, _ = rbm.contrastive_divergence(params, jax.random.key(0), many, steps=steps)
    a, b = (jnp.concatenate([leaf.ravel() for leaf in jax.tree.leaves(t)]) for t in (exact, found))
    cosine = float(a @ b / jnp.linalg.norm(a) / jnp.linalg.norm(b))
    assert cosine > {1: 0.8, 20: 0.99}[steps]
    if steps == 20:
        np.testing.assert_allclose(b, a, atol=0.02)


@pytest.mark.covers("M37")
@pytest.mark.parametrize("persistent", [False, True], ids=["cd", "persistent"])
def test_training_raises_the_exact_likelihood_towards_that_of_the_data(persistent):
    v = jnp.tile(jnp.array([[1.0, 1, 0, 0], [0, 0, 1, 1]]), (64, 1))
    before = rbm.log_likelihood(rbm.rbm_params(jax.random.key(1), 4, 4), v)
    params, errors = rbm.fit_rbm(jax.random.key(0), v, 4, epochs=150, rate=0.2, persistent=persistent)
    after = float(rbm.log_likelihood(params, v))
    assert float(before) == pytest.approx(-4 * np.log(2), abs=0.01)
    assert -2.0 < after <= -np.log(2)
    assert errors[-1] < errors[0]


def test_a_likelihood_of_too_many_states_and_bad_data_are_refused():
    with pytest.raises(ValueError, match=r"goes through 2\^21 states"):
        rbm.log_likelihood(rbm.rbm_params(jax.random.key(0), 21, 2), jnp.zeros((1, 21)))
    with pytest.raises(ValueError, match="at least a batch of 32"):
        rbm.fit_rbm(jax.random.key(0), jnp.zeros((8, 3)), 2)


@pytest.mark.covers("M38", "I18", "M70")
@pytest.mark.parametrize("pretrain", [belief.pretrain_rbms, belief.pretrain_autoencoders])
def test_fine_tuning_a_deep_sigmoid_network_goes_further_from_pretrained_weights(pretrain):
    """Labels are used in fine-tuning alone; same depth, same epochs, same order."""
    (x, y), test = data.train_test_split(data.digits(), 400, jax.random.key(0))
    x, held = x.reshape(len(x), -1), (test[0].reshape(400, -1), test[1])
    sizes = (32, 32, 32)
    model = models.mlp((64, *sizes, 10), activation=jax.nn.sigmoid)
    step = pn.make_step(
        pn.supervised(model, losses.softmax_cross_entropy, metrics={"accuracy": metrics.accuracy}),
        optim.sgd(0.5),
    )
    plain = pn.start(model, step.optimizer, jax.random.key(1))
    learned = jax.jit(lambda key: pretrain(key, x, sizes, epochs=15))(jax.random.key(2))
    assert set(learned) == {"dense_1", "dense_2", "dense_3"}
    warm = plain._replace(params={**plain.params, **learned})
    tune = jax.jit(lambda ts: pn.train(step, ts, (x, y), epochs=8, batch_size=32)[0])
    cold_score, warm_score = (pn.evaluate(step, tune(ts), held)["accuracy"] for ts in (plain, warm))
    assert warm_score > cold_score + 0.1
    assert warm_score > 0.5


@pytest.mark.covers("M73")
def test_over_frozen_features_the_last_layer_is_a_softmax_regression():
    """Fitting it by gradient comes to what the closed machine finds on the hidden activations."""
    from purenets.classic import regression

    x = normal(120, 4)
    y = jnp.argmax(jnp.stack([x[:, 0] * x[:, 1], x[:, 2], -x[:, 3]], 1), 1)
    hidden = jnp.tanh(x @ normal(4, 8, seed=1))
    best = regression.fit_softmax(hidden, jax.nn.one_hot(y, 3), penalty=1.0)
    cost = lambda p: (
        jnp.sum(losses.softmax_cross_entropy(hidden @ p["kernel"] + p["bias"], y))
        + 0.5 * jnp.sum(p["kernel"] ** 2)
    )
    start = jax.tree.map(jnp.zeros_like, best)
    go = lambda p, _: (jax.tree.map(lambda a, g: a - 0.02 * g, p, jax.grad(cost)(p)), None)
    found, _ = jax.lax.scan(go, start, None, length=3000)
    np.testing.assert_allclose(found["kernel"], best["kernel"], atol=2e-3)
