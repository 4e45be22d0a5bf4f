"""A step: the gradient of the trainable params, accumulated or whole, and what it refuses."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import purenets as pn
from purenets import losses, models, optim

SIZES = (4, 8, 3)


def problem(key=0, examples=12):
    x = jax.random.normal(jax.random.key(key), (examples, 4))
    y = jax.random.randint(jax.random.key(key + 1), (examples,), 0, 3)
    return x, y


def make(optimizer, **settings):
    model = models.mlp(SIZES, activation=jnp.tanh)
    objective = pn.supervised(model, losses.softmax_cross_entropy)
    trainable = settings.get("trainable", "**")
    ts = pn.start(model, optimizer, jax.random.key(3), trainable=trainable)
    return pn.make_step(objective, optimizer, **settings), ts


def by_hand(params, batch):
    def loss(params):
        h = jnp.tanh(batch[0] @ params["dense_1"]["kernel"] + params["dense_1"]["bias"])
        logits = h @ params["dense_2"]["kernel"] + params["dense_2"]["bias"]
        return optax.softmax_cross_entropy_with_integer_labels(logits, batch[1]).mean()

    return jax.value_and_grad(loss)(params)


def test_a_step_is_the_hand_written_one():
    optimizer = optax.adam(1e-2)
    step, ts = make(optimizer)
    params, opt_state = ts.params, optimizer.init(ts.params)
    jitted = jax.jit(step)
    for number in range(3):
        batch = problem(number)
        ts, metrics = jitted(ts, batch)
        loss, grads = by_hand(params, batch)
        updates, opt_state = optimizer.update(grads, opt_state, params)
        params = optax.apply_updates(params, updates)
        np.testing.assert_allclose(metrics["loss"], loss, rtol=1e-6)
    assert int(ts.step) == 3
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), ts.params, params)


@pytest.mark.parametrize("parts", [2, 3, 12])
def test_accumulated_is_the_whole_batch(parts):
    whole, ts = make(optax.sgd(0.1, momentum=0.9))
    cut, _ = make(optax.sgd(0.1, momentum=0.9), accumulate=parts)
    a, b = ts, ts
    for number in range(3):
        a, whole_metrics = whole(a, problem(number))
        b, cut_metrics = cut(b, problem(number))
    np.testing.assert_allclose(whole_metrics["loss"], cut_metrics["loss"], rtol=1e-5)
    jax.tree.map(lambda p, q: np.testing.assert_allclose(p, q, rtol=1e-5, atol=1e-6), a.params, b.params)


def test_params_that_are_not_trained_stay_and_cost_no_optimizer_state():
    step, ts = make(optax.adam(0.1), trainable="dense_2/*")
    assert set(ts.opt_state[0].mu) == {"dense_2"}
    after, _ = jax.jit(step)(ts, problem())
    jax.tree.map(np.testing.assert_array_equal, after.params["dense_1"], ts.params["dense_1"])
    assert not np.allclose(after.params["dense_2"]["kernel"], ts.params["dense_2"]["kernel"])


def test_params_that_are_not_trained_take_no_part_in_a_norm():
    clipped = optax.chain(optax.clip_by_global_norm(1e-3), optax.sgd(1.0))
    step, ts = make(clipped, trainable="dense_2/*")
    after, _ = step(ts, problem())
    moved = jax.tree.map(lambda a, b: a - b, after.params["dense_2"], ts.params["dense_2"])
    np.testing.assert_allclose(optax.global_norm(moved), 1e-3, rtol=1e-3)


def test_the_key_of_a_step_is_a_function_of_the_step_number_alone():
    seen = []

    def objective(params, state, batch, key, train):
        seen.append(key)
        return params["w"] * jax.random.uniform(key), (state, {})

    step = pn.make_step(objective, optax.sgd(1.0))
    params = {"w": jnp.float32(1)}
    ts = pn.TrainState(jnp.int32(7), params, {}, optax.sgd(1.0).init(params), jax.random.key(5))
    after, _ = step(ts, None)
    expected = jax.random.uniform(jax.random.fold_in(jax.random.key(5), 7))
    np.testing.assert_allclose(1 - after.params["w"], expected, rtol=1e-6)


def test_optimizers_that_ask_for_the_value_get_it():
    optimizer = optax.polyak_sgd()
    step, ts = make(optimizer)
    loss, grads = by_hand(ts.params, problem())
    after, _ = step(ts, problem())
    rate = jnp.minimum(1.0, loss / optax.global_norm(grads) ** 2)
    expected = jax.tree.map(lambda p, g: p - rate * g, ts.params, grads)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), after.params, expected)


def test_line_search_optimizers_run_inside_a_step():
    step, ts = make(optax.lbfgs())
    first = None
    for _ in range(5):
        ts, metrics = jax.jit(step)(ts, problem())
        first = metrics["loss"] if first is None else first
    assert metrics["loss"] < 0.5 * first


def test_a_batch_that_accumulate_does_not_divide_is_refused():
    step, ts = make(optax.sgd(0.1), accumulate=5)
    with pytest.raises(
        ValueError, match=r"accumulate=5 does not divide the batch of 12 examples, batch\[0\]"
    ):
        step(ts, problem())


def test_accumulate_below_one_is_refused():
    with pytest.raises(ValueError, match="accumulate needs to be at least 1, got 0"):
        make(optax.sgd(0.1), accumulate=0)


def test_something_that_is_no_optimizer_is_refused():
    with pytest.raises(TypeError, match=r"needs an optimizer with init and update, got 0\.1"):
        pn.make_step(lambda *a: None, 0.1)


def test_a_trainable_pattern_without_match_lists_the_params():
    model = models.mlp(SIZES)
    with pytest.raises(ValueError, match=r"'head/\*' matches no leaf; there are: dense_1/"):
        pn.start(model, optax.sgd(0.1), jax.random.key(0), trainable="head/*")


def test_an_untyped_key_is_refused():
    with pytest.raises(TypeError, match=r"a typed key is needed, jax.random.key\(0\), got uint32\[2\]"):
        pn.start(models.mlp(SIZES), optax.sgd(0.1), jax.random.PRNGKey(0))


def test_a_training_that_starts_from_given_params_makes_the_optimizer_state_of_them():
    model, optimizer = models.mlp(SIZES), optax.ema(0.5)._replace(init=lambda params: {"copy": params})
    given = jax.tree.map(lambda leaf: leaf + 1, model.init(jax.random.key(9))[0])
    ts = pn.start(model, optimizer, jax.random.key(0), params=given, trainable="dense_2/*")
    assert ts.params is given
    assert ts.state == {}
    assert ts.opt_state["copy"]["dense_2"]["kernel"] is given["dense_2"]["kernel"]
    assert set(ts.opt_state["copy"]) == {"dense_2"}
    fresh = pn.start(model, optimizer, jax.random.key(0))
    assert bool(jax.random.key_data(ts.key).tolist() == jax.random.key_data(fresh.key).tolist())


@pytest.mark.parametrize("given", ["params", "state"])
def test_of_params_and_state_the_one_that_is_not_given_is_drawn(given):
    model = pn.serial(pn.dense(4, 8), pn.batch_norm(8))
    fresh = pn.start(model, optax.sgd(0.1), jax.random.key(0))
    moved = jax.tree.map(lambda leaf: leaf + 1, getattr(fresh, given))
    ts = pn.start(model, optax.sgd(0.1), jax.random.key(0), **{given: moved})
    expected = fresh._replace(**{given: moved})
    jax.tree.map(np.testing.assert_array_equal, (ts.params, ts.state), (expected.params, expected.state))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda p: {"dense_1": p["dense_1"]}, "differ in dense_2/bias, dense_2/kernel"),
        (lambda p: {**p, "head": {"bias": jnp.zeros(2)}}, "differ in head/bias"),
        (
            lambda p: {**p, "dense_1": {**p["dense_1"], "bias": jnp.zeros(7)}},
            r"dense_1/bias: expected .*got .*\[7\]",
        ),
    ],
    ids=["missing", "unexpected", "reshaped"],
)
def test_params_of_another_model_are_refused_at_the_start(change, says):
    model = models.mlp(SIZES)
    params, _ = model.init(jax.random.key(0))
    with pytest.raises(ValueError, match=f"start got params that are not those of serial.*{says}"):
        pn.start(model, optax.sgd(0.1), jax.random.key(0), params=change(params))


def test_a_step_is_a_scan_body_and_a_vmap_of_steps_is_separate_steps():
    step, ts = make(optax.sgd(0.1))
    batches = jax.tree.map(lambda *leaves: jnp.stack(leaves), *[problem(i) for i in range(4)])
    scanned, _ = jax.lax.scan(step, ts, batches)
    looped = ts
    for i in range(4):
        looped, _ = step(looped, jax.tree.map(lambda leaf, i=i: leaf[i], batches))
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), scanned.params, looped.params
    )
    many = jax.vmap(step, (None, 0))(ts, batches)[0]
    one, _ = step(ts, jax.tree.map(lambda leaf: leaf[2], batches))
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a[2], b, rtol=1e-5, atol=1e-6), many.params, one.params
    )


@pytest.mark.covers("G14")
def test_norms_are_those_of_gradients_and_of_updates_over_params():
    step, ts = make(optax.sgd(0.1), norms=["**", "dense_2/**", "dense_1/kernel"])
    _, metrics = jax.jit(step)(ts, problem())
    _, grads = by_hand(ts.params, problem())
    chosen = {
        "": (grads, ts.params),
        "/dense_2/**": (grads["dense_2"], ts.params["dense_2"]),
        "/dense_1/kernel": (grads["dense_1"]["kernel"], ts.params["dense_1"]["kernel"]),
    }
    assert set(metrics) == {"loss", "learning_rate"} | {
        f"{n}{c}" for n in ("gradient_norm", "update_ratio") for c in chosen
    }
    for name, (gradient, params) in chosen.items():
        norm, size = optax.tree.norm(gradient), optax.tree.norm(params)
        np.testing.assert_allclose(metrics[f"gradient_norm{name}"], norm, rtol=1e-5)
        np.testing.assert_allclose(metrics[f"update_ratio{name}"], 0.1 * norm / size, rtol=1e-5)


def test_norms_of_params_that_are_not_there_or_not_trained_are_refused():
    step, ts = make(optax.sgd(0.1), trainable="dense_2/*", norms="dense_1/*")
    with pytest.raises(ValueError, match=r"'dense_1/\*' matches no trained param; there are: dense_2/bias"):
        step(ts, problem())


@pytest.mark.parametrize("inject", [False, True], ids=["schedule", "injected"])
def test_the_rate_that_a_step_used_comes_back_with_it(inject):
    schedule = lambda count: 0.1 / (1 + count)
    rule = optim.inject_hyperparams(optim.sgd)(schedule) if inject else optim.sgd(schedule)
    model = pn.dense(2, 1)
    step = pn.make_step(pn.supervised(model, losses.squared_error), rule)
    ts = pn.start(model, rule, jax.random.key(0))
    x, y = jnp.ones((12, 2)), jnp.zeros((12, 1))
    _, metrics = jax.jit(lambda ts: pn.train(step, ts, (x, y), epochs=2, batch_size=4))(ts)
    np.testing.assert_allclose(metrics["learning_rate"].ravel(), 0.1 / np.arange(1, 7), rtol=1e-6)


def test_rates_of_groups_come_back_by_group_and_a_rule_of_ones_own_gives_none():
    model = pn.serial(first=pn.dense(2, 3), second=pn.dense(3, 1))
    objective = pn.supervised(model, losses.squared_error)
    batch = (jnp.ones((4, 2)), jnp.zeros((4, 1)))
    groups = optim.groups({"first/*": optim.sgd(0.1), "**": optim.adam(0.01)})
    own = optax.GradientTransformation(
        lambda p: (), lambda g, s, p=None: (jax.tree.map(lambda g: -g / 9, g), s)
    )
    for rule, rates in ((groups, {"first/*/learning_rate": 0.1, "**/learning_rate": 0.01}), (own, {})):
        _, metrics = jax.jit(pn.make_step(objective, rule))(pn.start(model, rule, jax.random.key(0)), batch)
        assert {k: pytest.approx(float(v)) for k, v in metrics.items() if k != "loss"} == rates
