"""The steps of a careful training, each by the number or property that the field expects of it."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree
from sklearn import decomposition, preprocessing

import purenets as pn
from experiments.mnist_mlp import Config
from purenets import data, losses, metrics, models, optim, regularizers
from purenets.classic.regression import fit_softmax
from purenets.data.preprocess import (
    from_one_hot,
    standardise,
    standardiser,
    to_one_hot,
    whiten,
    whitener,
)
from purenets.train.procedure import curriculum_order, initial_loss, overfit, rate_range_test, restarts
from tests.layers.peers import normal

MODEL = models.mlp((64, 32, 10))
OBJECTIVE = pn.supervised(MODEL, losses.softmax_cross_entropy, metrics={"accuracy": metrics.accuracy})


@pytest.fixture(scope="module")
def digits():
    x, y = data.digits()
    return x.reshape(len(x), -1), y


def _started(rate=0.1, key=0):
    step = pn.make_step(OBJECTIVE, optim.sgd(rate))
    return step, pn.start(MODEL, step.optimizer, jax.random.key(key))


@pytest.mark.covers("T12")
def test_before_training_the_loss_is_near_the_logarithm_of_the_classes(digits):
    _, ts = _started()
    found, expected = initial_loss(OBJECTIVE, ts, digits, 10)
    assert expected == pytest.approx(2.3026, abs=1e-4)
    assert float(found) == pytest.approx(expected, abs=0.2)
    large = ts._replace(params=jax.tree.map(lambda leaf: 30 * leaf, ts.params))
    assert float(initial_loss(OBJECTIVE, large, digits, 10)[0]) > 10 * expected


@pytest.mark.covers("T12", "T09", "L10")
def test_the_loss_rises_with_the_weight_of_the_penalty(digits):
    _, ts = _started()
    totals = [
        float(initial_loss(regularizers.regularized(OBJECTIVE, scale=strength), ts, digits, 10)[0])
        for strength in (0.0, 0.01, 0.1)
    ]
    assert totals[0] < totals[1] < totals[2]


@pytest.mark.covers("T11", "T02")
def test_a_few_examples_are_learned_by_heart(digits):
    step, ts = _started(0.5)
    few = jax.tree.map(lambda leaf: leaf[:10], digits)
    after, history = jax.jit(lambda ts: overfit(step, ts, few))(ts)
    assert float(history["loss"][-1]) < 0.01
    assert float(history["accuracy"][-1]) == 1.0
    again, _ = jax.jit(lambda ts: overfit(step, ts, few))(ts)
    jax.tree.map(np.testing.assert_array_equal, after.params, again.params)


@pytest.mark.covers("T01", "T13")
def test_the_range_test_finds_a_rate_that_lowers_the_loss_between_none_and_too_much(digits):
    def step_of(rate):
        return pn.make_step(OBJECTIVE, optim.sgd(rate))

    def start(rate, key):
        return pn.start(MODEL, optim.sgd(rate), key)

    found = rate_range_test(step_of, start, digits, jax.random.key(0), low=1e-5, high=1e3, rates=17, steps=56)
    ln10 = float(np.log(10))
    assert found.losses[0] == pytest.approx(ln10, abs=0.3)
    assert 0.01 < float(found.best) < 10
    assert float(found.losses.min()) < 0.5 * ln10
    assert float(found.losses[-1]) > ln10
    with pytest.raises(ValueError, match="0 < low < high"):
        rate_range_test(step_of, start, digits, jax.random.key(0), low=1.0, high=0.1)


@pytest.mark.covers("T14")
def test_the_best_of_many_starts_is_no_worse_than_any():
    valley = lambda w: (w**2 - 1) ** 2 + 0.3 * w

    def run(key):
        w = jax.random.uniform(key, (), minval=-2, maxval=2)
        w, _ = jax.lax.scan(lambda w, _: (w - 0.02 * jax.grad(valley)(w), None), w, None, length=300)
        return w, valley(w)

    best, found = restarts(run, jax.random.key(0), 16)
    assert float(valley(best)) == pytest.approx(float(found.min()))
    assert float(found.max()) - float(found.min()) > 0.5
    assert float(best) == pytest.approx(-1.0354, abs=1e-2)


@pytest.mark.covers("T06")
def test_a_curriculum_goes_from_easy_to_hard_and_ends_with_all():
    difficulty = jnp.array([3.0, 1.0, 2.0, 1.0])
    order, count = curriculum_order(difficulty, 0.5)
    assert order.tolist() == [1, 3, 2, 0]
    assert int(count) == 2
    assert int(curriculum_order(difficulty, 0.0)[1]) == 1
    assert int(curriculum_order(difficulty, 1.0)[1]) == 4


@pytest.mark.covers("T16", "M18", "M26", "M25")
def test_labels_become_unit_vectors_and_come_back():
    labels = jnp.array([3, 0, 1, 2])
    targets = to_one_hot(labels, 4)
    np.testing.assert_array_equal(targets, np.eye(4)[[3, 0, 1, 2]])
    np.testing.assert_array_equal(from_one_hot(targets), labels)
    names = [
        "1",
        "2",
        "3",
        "4",
        "5",
        "6",
        "7",
        "8",
        "9",
        "0",
    ]  # an order that starts with one and ends with zero
    assert names[int(from_one_hot(jnp.eye(10)[9]))] == "0"
    with pytest.raises(ValueError, match="labels of 4 classes go from 0 to 3, got 0 to 4"):
        to_one_hot(jnp.array([0, 4]), 4)
    with pytest.raises(ValueError, match="needs integer labels"):
        to_one_hot(jnp.array([0.5]), 4)


@pytest.mark.covers("T18")
def test_all_parameters_unroll_to_one_vector_of_13002_and_back():
    params, _ = models.mlp((784, 16, 16, 10)).init(jax.random.key(0))
    flat, back = ravel_pytree(params)
    assert flat.shape == (13_002,)
    jax.tree.map(np.testing.assert_array_equal, back(flat), params)


@pytest.mark.covers("T15")
def test_hyperparameters_are_a_record_that_survives_being_written():
    config = Config(learning_rate=1e-2, epochs=3)
    assert Config(**json.loads(json.dumps(dataclasses.asdict(config)))) == config


@pytest.mark.covers("T19", "M69")
def test_a_pipeline_of_boxes_is_trained_end_to_end_and_a_specification_is_the_network():
    pipe = lambda: pn.serial(features=pn.dense(3, 4), squash=jnp.tanh, decide=pn.dense(4, 2))
    first, second = (jax.eval_shape(pipe().init, jax.random.key(0))[0] for _ in range(2))
    assert jax.tree.structure(first) == jax.tree.structure(second)
    model = pipe()
    params, _ = model.init(jax.random.key(0))
    slopes = jax.grad(lambda p: jnp.sum(model.apply(p, {}, normal(5, 3))[0] ** 2))(params)
    assert all(float(jnp.abs(leaf).max()) > 0 for leaf in jax.tree.leaves(slopes))


@pytest.mark.covers("T20")
def test_the_gap_between_training_and_test_grows_with_the_parameters_for_few_noisy_data():
    x = normal(400, 10)
    y = (x[:, 0] + 1.5 * normal(400, seed=1) > 0).astype(jnp.int32)

    def gap(features):
        found = fit_softmax(features[:40], jax.nn.one_hot(y[:40], 2), penalty=1e-3)
        right = jnp.argmax(features @ found["kernel"] + found["bias"], 1) == y
        return float(right[:40].mean() - right[40:].mean())

    wide = jnp.tanh(x @ normal(10, 40, seed=2))
    assert gap(wide) > gap(x[:, :1]) + 0.1


@pytest.mark.covers("T22", "M68")
def test_teacher_forcing_gives_each_step_the_true_tokens_before_it():
    """The loss of a whole sequence at once is the sum of the losses of the true prefixes."""
    model = models.encoder_decoder(7, 7, 8, 2, 1)
    params, _ = model.init(jax.random.key(0))
    source, target = jnp.array([[1, 2, 3]]), jnp.array([[0, 4, 5, 6]])
    logits = model.apply(params, {}, source, target[:, :-1])[0]
    whole = losses.softmax_cross_entropy(logits, target[:, 1:])[0]
    for t in range(3):
        prefix = model.apply(params, {}, source, target[:, : t + 1])[0][:, -1]
        np.testing.assert_allclose(
            losses.softmax_cross_entropy(prefix, target[:, t + 1])[0], whole[t], rtol=1e-4
        )


@pytest.mark.covers("M28")
def test_a_unit_ranks_pictures_by_how_well_they_fit_its_pattern():
    pattern = np.ones((6, 6))
    pattern[:, 3:] = -1
    blank, partial = np.zeros((6, 6)), pattern.copy()
    partial[3:] = 0
    pictures = np.stack([pattern, partial, blank, -pattern]).reshape(4, -1)
    scores = jax.nn.sigmoid(jnp.asarray(pictures @ pattern.ravel()) * 0.1)
    assert np.all(np.diff(scores) < 0)
    assert float(scores[2]) == 0.5


@pytest.mark.covers("W07")
def test_the_first_three_steps_of_adagrad_divide_by_the_printed_roots():
    """The mean of the squares under the root, and a rate that falls as 1 / sqrt(t + 1): together, their sum."""
    g = np.array([0.5, -2.0, 1.0])
    printed = [abs(g[0]), np.sqrt((g[0] ** 2 + g[1] ** 2) / 2), np.sqrt((g**2).sum() / 3)]
    optimizer = optim.adagrad(0.1, initial_accumulator_value=0.0, eps=0.0)
    w, state = jnp.float32(0), optimizer.init(jnp.float32(0))
    for t, (slope, root) in enumerate(zip(g, printed, strict=True)):
        update, state = optimizer.update(jnp.float32(slope), state, w)
        assert float(update) == pytest.approx(-0.1 / np.sqrt(t + 1) / root * slope, rel=1e-5)


@pytest.mark.covers("S08")
def test_a_step_is_as_long_as_the_slope_is_steep():
    optimizer = optim.sgd(0.1)
    for slope in (4.0, 0.4, 0.004):
        update, _ = optimizer.update(jnp.float32(slope), optimizer.init(jnp.float32(0)))
        assert abs(float(update)) == pytest.approx(0.1 * slope, rel=1e-6)


def test_standardised_and_whitened_data_agree_with_scikit_learn(x64):
    x = normal(50, 4, dtype=jnp.float64) @ normal(4, 4, seed=1, dtype=jnp.float64) + 3
    ours = standardise(standardiser(x), x)
    np.testing.assert_allclose(ours, preprocessing.StandardScaler().fit_transform(x), rtol=1e-9, atol=1e-12)
    white = whiten(whitener(x, eps=0.0), x)
    np.testing.assert_allclose(white.T @ white / 50, np.eye(4), atol=1e-9)
    theirs = decomposition.PCA(whiten=True).fit_transform(x) * np.sqrt(50 / 49)
    np.testing.assert_allclose(white @ white.T, theirs @ theirs.T, atol=1e-8)
    constant = jnp.ones((5, 2))
    np.testing.assert_array_equal(standardise(standardiser(constant), constant), 0)
    with pytest.raises(ValueError, match="two examples or more"):
        whitener(constant[:1])
