"""Transforms of transforms against optax's: masks, conditions, accumulation, injection, lookahead."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from purenets import optim
from tests.optim import trajectory
from tests.optim.trajectory import RTOL, assert_same, compiled, loss_like, run, walk

RATE = optax.exponential_decay(0.3, 20, 0.9)
SMALL = {"dense": {"kernel": (3, 2), "bias": (4,)}, "scale": (), "nothing": (0,)}
MASK = {"dense": {"kernel": True, "bias": False}, "scale": False, "nothing": True}
LABELS = {"dense": {"kernel": "a", "bias": "b"}, "scale": "b", "nothing": "c"}


params_of = partial(trajectory.params_of, shapes=SMALL)
gradients_of = partial(trajectory.gradients_of, shapes=SMALL)
assert_twins = partial(trajectory.assert_twins, shapes=SMALL)


def by_rank(tree):
    return jax.tree.map(lambda x: x.ndim > 1, tree)


def every_third(step, **extra):
    return step % 3 == 0


def two_answers(*_):
    return jnp.ones(2), ()


def high(step, *, value, **extra):
    return value > 3.0


TWINS = {
    "masked, a prefix": lambda lib: lib.masked(lib.adam(0.1), MASK),
    "masked, a function": lambda lib: lib.masked(lib.sgd(0.1, 0.9), by_rank),
    "masked, all": lambda lib: lib.masked(lib.sgd(0.1, 0.9), True),
    "masked, nothing": lambda lib: lib.masked(lib.sgd(0.1, 0.9), False),
    "masked in masked": lambda lib: lib.masked(lib.masked(lib.sgd(0.1, 0.9), by_rank), by_rank),
    "partition": lambda lib: lib.partition(
        {"a": lib.sgd(0.1, 0.9), "b": lib.sgd(0.1), "c": lib.set_to_zero(), "unused": lib.adam(0.3)}, LABELS
    ),
    "multi_transform, a function": lambda lib: lib.multi_transform(
        {2: lib.sgd(0.1, 0.9), 1: lib.sgd(RATE), 0: lib.sgd(0.01)}, partial(jax.tree.map, jnp.ndim)
    ),
    "freeze": lambda lib: lib.chain(lib.scale(0.1), lib.freeze(MASK)),
    "selective_transform": lambda lib: lib.selective_transform(lib.sgd(0.1, 0.9), freeze_mask=MASK),
    "conditionally_transform": lambda lib: lib.conditionally_transform(lib.sgd(0.1, 0.9), every_third),
    "conditionally_mask": lambda lib: lib.conditionally_mask(lib.sgd(0.1, 0.9), every_third),
    "conditionally_transform on the loss": lambda lib: lib.conditionally_transform(lib.sgd(0.1), high, True),
    "conditionally_mask on the loss": lambda lib: lib.conditionally_mask(lib.sgd(0.1, 0.9), high, True),
    "apply_if_finite": lambda lib: lib.apply_if_finite(lib.sgd(0.1, 0.9), 2),
    "MultiSteps": lambda lib: lib.MultiSteps(lib.sgd(RATE, 0.9), 4),
    "MultiSteps of 1": lambda lib: lib.MultiSteps(lib.sgd(RATE, 0.9), 1),
    "MultiSteps, sums": lambda lib: lib.MultiSteps(lib.sgd(0.1, 0.9), 3, use_grad_mean=False),
    "MultiSteps, growing": lambda lib: lib.MultiSteps(
        lib.sgd(0.1, 0.9), lambda step: 1 + step // 10, accumulator_dtype=float
    ),
    "MultiSteps, skipping": lambda lib: lib.MultiSteps(
        lib.sgd(0.1, 0.9), 3, should_skip_update_fn=partial(lib.skip_large_updates, max_squared_norm=100.0)
    ),
    "MultiSteps, all finite": lambda lib: lib.MultiSteps(
        lib.sgd(0.1, 0.9), 3, should_skip_update_fn=lib.skip_not_finite
    ),
    "MultiSteps as a transform": lambda lib: lib.chain(
        lib.scale(2.0), lib.MultiSteps(lib.sgd(0.1), 3).gradient_transformation()
    ),
    "inject": lambda lib: lib.inject_hyperparams(lib.adam)(0.1, b1=0.8, eps_root=1e-9),
    "inject a schedule": lambda lib: lib.inject_hyperparams(lib.adamw)(RATE, b2=lambda t: 0.9 + t / 2100.0),
    "inject with static arguments": lambda lib: lib.inject_hyperparams(lib.sgd, static_args=("momentum",))(
        RATE, momentum=0.9, nesterov=True
    ),
    "inject in float32": lambda lib: lib.inject_hyperparams(
        lib.sgd, hyperparam_dtype=jnp.float32
    )(0.125, 0.5),
    "inject a WrappedSchedule": lambda lib: lib.inject_hyperparams(lib.sgd)(lib.WrappedSchedule(RATE)),
    "flatten": lambda lib: lib.flatten(lib.chain(lib.clip_by_block_rms(0.3), lib.sgd(0.1, 0.9))),
    "snapshot": lambda lib: lib.chain(lib.scale(0.1), lib.snapshot("largest", largest)),
}  # fmt: skip


def largest(tree):
    return {"of all": jnp.max(jnp.abs(tree["dense"]["kernel"]))}


def with_loss(gradients):
    return {"value": loss_like(gradients)}


@pytest.mark.parametrize("case", TWINS)
def test_a_wrapper_equals_its_optax_twin(case, x64):
    kwargs = {"extra": with_loss} if "loss" in case else {}
    assert_twins(TWINS[case](optim), TWINS[case](optax), **kwargs)


MIXED = {
    "masked": lambda lib, inner: lib.masked(inner.adam(0.1), MASK),
    "MultiSteps": lambda lib, inner: lib.MultiSteps(inner.adam(0.1), 3),
    "inject_hyperparams": lambda lib, inner: lib.inject_hyperparams(inner.adam)(RATE),
    "partition": lambda lib, inner: lib.partition(
        {True: optax.masked(inner.adam(0.1), by_rank), False: inner.sgd(0.1)}, MASK
    ),
    "apply_if_finite": lambda lib, inner: lib.apply_if_finite(inner.sgd(0.1, 0.9), 2),
}


@pytest.mark.parametrize("case", MIXED)
@pytest.mark.parametrize(
    ("outer", "inner"), [(optax, optim), (optim, optax)], ids=["ours inside", "theirs inside"]
)
def test_ours_in_theirs_and_theirs_in_ours_are_theirs(case, outer, inner, x64):
    assert_twins(MIXED[case](outer, inner), MIXED[case](optax, optax), dtypes=("float64",))


def spoil(gradients, steps, value):
    """The gradients with one entry not finite at some steps."""
    bias = gradients["dense"]["bias"]
    return gradients | {"dense": gradients["dense"] | {"bias": bias.at[jnp.asarray(steps), 1].set(value)}}


@pytest.mark.covers("G15")
@pytest.mark.parametrize("limit", [0, 2, 3, 10])
def test_apply_if_finite_skips_counts_and_gives_up_as_optax_does(limit, x64):
    params = params_of("float64")
    gradients = spoil(gradients_of("float64", 40), [3, 4, 5, 9, 20, 21], jnp.nan)
    gradients = spoil(gradients, [25], jnp.inf)
    mine, theirs = (
        run(lib.apply_if_finite(lib.sgd(0.1), limit), params, gradients) for lib in (optim, optax)
    )
    for a, b in zip(jax.tree.leaves(mine), jax.tree.leaves(theirs), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12)
    finite = np.all([np.isfinite(leaf).all() for leaf in jax.tree.leaves(mine[0])])
    assert finite == (limit >= 3)


@pytest.mark.parametrize("k", [1, 3, 7])
def test_k_small_batches_move_as_their_mean_does_at_once(k, x64):
    steps = 8
    params, gradients = params_of("float64"), gradients_of("float64", steps * k)
    optimizer = optim.MultiSteps(optim.adam(0.1), k, accumulator_dtype=jnp.float64)
    pieces = run(optimizer, params, gradients)[0]
    whole = jax.tree.map(lambda g: g.reshape(steps, k, *g.shape[1:]).mean(1), gradients)
    expected = run(optim.adam(0.1), params, whole)[0]
    assert_same(jax.tree.map(lambda u: u[k - 1 :: k], pieces), expected, 1e-9)
    for leaf in jax.tree.leaves(pieces):
        assert not np.asarray(leaf).reshape(steps, k, -1)[:, :-1].any()


def test_a_batch_that_is_not_finite_is_forgotten_at_the_next_gradient_step(x64):
    params = params_of("float64")
    gradients = spoil(gradients_of("float64", 12), [1], jnp.nan)
    ours = run(optim.MultiSteps(optim.sgd(0.1), 3, accumulator_dtype=jnp.float64), params, gradients)[0]
    theirs = run(optax.MultiSteps(optax.sgd(0.1), 3, accumulator_dtype=jnp.float64), params, gradients)[0]
    bad = np.isnan(ours["dense"]["bias"]).any(axis=1)
    assert bad.tolist() == [t == 2 for t in range(12)]
    # The negative control: optax keeps the NaN, because it empties its sums by a product with zero.
    assert np.isnan(theirs["dense"]["bias"][2:]).any(axis=1).all()


def test_skipped_batches_are_as_if_they_had_not_been(x64):
    params, gradients = params_of("float64"), gradients_of("float64", 30)
    bad = [0, 7, 8, 19]
    optimizer = optim.MultiSteps(optim.adam(0.1), 2, should_skip_update_fn=optim.skip_not_finite)
    updates, states, _ = run(optimizer, params, spoil(gradients, bad, jnp.inf))
    good = np.setdiff1d(np.arange(30), bad)
    without = run(optimizer, params, jax.tree.map(lambda g: g[good], gradients))[0]
    assert_same(jax.tree.map(lambda u: u[good], updates), without, 1e-12)
    assert np.flatnonzero(states.skip_state["should_skip"]).tolist() == bad
    assert states.skip_state["num_not_finite"][7] == 1


def test_multi_steps_gathers_complex_gradients_whole(x64):
    optimizer = optim.MultiSteps(optim.sgd(1.0), 2)
    state = optimizer.init(jnp.zeros(1, jnp.complex128))
    _, state = optimizer.update(jnp.asarray([1 + 3j]), state)
    updates, state = optimizer.update(jnp.asarray([3 + 1j]), state)
    np.testing.assert_allclose(updates, [-2 - 2j])
    assert bool(optimizer.has_updated(state))


def test_multi_steps_does_not_run_the_optimizer_between(x64):
    ran = []
    inner = optim.stateless(
        lambda u, p: jax.tree.map(lambda x: jax.pure_callback(lambda v: (ran.append(1), v)[1], x, x), u)
    )
    optimizer = optim.MultiSteps(inner, 5)
    walk(optimizer, jnp.zeros(2), jnp.ones((20, 2)))
    jax.effects_barrier()
    assert len(ran) == 4


def test_the_learning_rate_in_use_can_be_read_from_the_state_and_changed():
    optimizer = optim.inject_hyperparams(optim.sgd)(RATE, momentum=0.9)
    state = optimizer.init(jnp.zeros(2))
    for t in range(3):
        _, state = optimizer.update(jnp.ones(2), state)
        assert state.hyperparams["learning_rate"] == pytest.approx(float(RATE(t)))
    optimizer = optim.inject_hyperparams(optim.sgd)(0.5)
    state = optimizer.init(jnp.zeros(2))
    state.hyperparams["learning_rate"] = 0.25
    np.testing.assert_allclose(optimizer.update(jnp.ones(2), state)[0], -0.25)


def test_an_injected_schedule_sees_0_1_2_once_each():
    seen = []

    def schedule(count):
        seen.append(int(count))
        return 0.1

    optimizer = optim.inject_hyperparams(optim.sgd)(schedule)
    state = optimizer.init(jnp.zeros(2))
    assert seen == [0]
    for _ in range(4):
        _, state = optimizer.update(jnp.ones(2), state)
    assert seen[1:] == [0, 1, 2, 3]


class HalvedWhenTheLossRises:
    """A schedule that follows the loss."""

    def init(self):
        return {"rate": jnp.asarray(1.0), "last": jnp.asarray(jnp.inf)}

    def update(self, state, *, value, **extra):
        rate = jnp.where(value > state["last"], state["rate"] / 2, state["rate"])
        return {"rate": rate, "last": value}

    def __call__(self, state, **extra):
        return state["rate"]


def test_a_stateful_schedule_may_follow_the_loss():
    optimizer = optim.inject_hyperparams(optim.sgd)(HalvedWhenTheLossRises())
    state = optimizer.init(jnp.zeros(1))
    rates = []
    for loss in (3.0, 2.0, 4.0, 5.0, 1.0):
        updates, state = optimizer.update(jnp.ones(1), state, value=jnp.asarray(loss))
        rates.append(-float(updates[0]))
    assert rates == [1.0, 1.0, 1.0, 0.5, 0.25]


def test_the_hyperparameters_keep_their_dtype_with_and_without_parameters():
    optimizer = optim.inject_hyperparams(optim.adam)(RATE)
    params = jnp.zeros(2, jnp.bfloat16)
    state = optimizer.init(params)
    _, without = optimizer.update(params, state)
    _, given = optimizer.update(params, state, params)
    for other in (without, given):
        assert jax.tree.map(lambda x: (x.dtype, x.weak_type), other) == jax.tree.map(
            lambda x: (x.dtype, x.weak_type), state
        )


def test_a_key_and_a_flag_may_be_arguments_of_an_injected_factory():
    optimizer = optim.inject_hyperparams(optax.add_noise)(eta=0.01, gamma=0.55, key=jax.random.key(3))
    state = optimizer.init(jnp.zeros(2))
    assert not isinstance(state.hyperparams["eta"], float)
    optimizer.update(jnp.zeros(2), state)


@pytest.mark.parametrize("inner", [optax, optim], ids=["theirs", "ours"])
def test_a_function_that_is_a_default_of_the_factory_is_no_schedule(inner, x64):
    # optax takes every function for a schedule, unless it is named.
    twin = optax.inject_hyperparams(optax.contrib.adopt, static_args="clip_value_fn")(learning_rate=0.1)
    mine = optim.inject_hyperparams(inner.contrib.adopt)(learning_rate=0.1)
    assert_twins(mine, twin, dtypes=("float64",))


def test_injection_keeps_the_name_and_the_docs_of_the_factory_and_of_its_extra_arguments():
    def noisy(rate, *more, **named):
        assert more == (7.0,)
        assert named == {"b": 2.0}
        return optim.scale(rate)

    factory = optim.inject_hyperparams(noisy)
    assert factory.__name__ == "noisy"
    optimizer = factory(0.5, 7.0, b=2.0)
    np.testing.assert_allclose(optimizer.update(jnp.ones(1), optimizer.init(jnp.ones(1)))[0], 0.5)


def test_the_deprecated_name_of_injection_warns():
    with pytest.warns(DeprecationWarning, match="use inject_hyperparams"):
        optim.inject_stateful_hyperparams(optim.sgd)


@pytest.mark.parametrize(("period", "reset"), [(1, False), (5, False), (5, True)])
def test_lookahead_equals_optax(period, reset, x64):
    for dtype in ("float64", "float32"):
        params, gradients = optax.LookaheadParams.init_synced(params_of(dtype)), gradients_of(dtype)
        mine, theirs = (lib.lookahead(lib.sgd(0.1, 0.9), period, 0.4, reset) for lib in (optim, optax))
        both = compiled(
            lambda p, g, mine=mine, theirs=theirs: (walk_lookahead(mine, p, g), walk_lookahead(theirs, p, g))
        )
        assert_same(*both(params, gradients), RTOL[dtype])


def walk_lookahead(optimizer, params, gradients):
    def step(carry, g):
        params, state = carry
        updates, state = optimizer.update(g, state, params)
        return (optim.apply_updates(params, updates), state), (updates, state, params)

    return jax.lax.scan(step, (params, optimizer.init(params)), gradients)[1]


def test_lookahead_follows_the_two_loops_of_the_paper(x64):
    params, gradients = params_of("float64"), gradients_of("float64", 12)
    optimizer = optim.lookahead(optim.sgd(0.1), 4, 0.3)
    both = walk_lookahead(optimizer, optim.LookaheadParams.init_synced(params), gradients)[2]
    slow = np.asarray(params["dense"]["kernel"])
    steps = np.asarray(gradients["dense"]["kernel"])
    for outer in range(3):
        fast = slow
        for inner in range(4):
            t = 4 * outer + inner
            np.testing.assert_allclose(both.slow["dense"]["kernel"][t], slow, rtol=1e-12)
            np.testing.assert_allclose(both.fast["dense"]["kernel"][t], fast, rtol=1e-12, atol=1e-12)
            fast = fast - 0.1 * steps[t]
        slow = slow + 0.3 * (fast - slow)


def test_a_monitor_measures_what_passes_and_may_be_carried_by_a_scan(x64):
    def make(lib):
        return lib.chain(
            lib.scale(2.0),
            lib.monitor(
                {
                    "norm": optax.tree.norm,
                    "often large": lib.measure_with_ema(lambda u: optax.tree.norm(u) > 1.0, 0.9),
                    "mean norm": lib.measure_with_ema(optax.tree.norm, 0.5, debias=False),
                }
            ),
        )

    params, gradients = params_of("float64"), gradients_of("float64", 20)
    measured = run(make(optim), params, gradients)[1][1].measurements
    optimizer = make(optax)
    state = optimizer.init(params)
    for t in range(20):
        _, state = optimizer.update(jax.tree.map(lambda g, t=t: g[t], gradients), state)
        for name, value in state[1].measurements.items():
            np.testing.assert_allclose(measured[name][t], value, rtol=1e-6, err_msg=name)


@pytest.mark.parametrize("case", [c for c in TWINS if c != "flatten"])
def test_a_wrapper_inits_from_shapes_alone_and_its_state_is_a_scan_carry(case):
    optimizer = TWINS[case](optim)
    params = params_of("float32")
    abstract = optimizer.init(jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), params))
    state = optimizer.init(params)
    kinds = jax.tree.map(lambda x: (jnp.shape(x), jnp.result_type(x), x.weak_type), state)
    assert kinds == jax.tree.map(lambda x: (jnp.shape(x), jnp.result_type(x), x.weak_type), abstract)
    after = jax.eval_shape(partial(optimizer.update, value=1.0), params, state, params)[1]
    assert kinds == jax.tree.map(lambda x: (x.shape, x.dtype, x.weak_type), after)


@pytest.mark.parametrize(
    "case", ["masked, a prefix", "partition", "inject", "conditionally_mask", "apply_if_finite"]
)
@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16, jnp.complex64])
def test_a_wrapper_keeps_dtypes_even_around_optax(case, dtype):
    if dtype == jnp.complex64 and case == "inject":
        pytest.skip("optax's adam has no dtype of its own for complex rates")
    for lib in (optim, optax):
        namespace = type(
            "mixed", (), {**vars(optim), "adam": staticmethod(lib.adam), "sgd": staticmethod(lib.sgd)}
        )
        optimizer = TWINS[case](namespace)
        params = params_of(dtype)
        updates, state = jax.jit(optimizer.update)(params, optimizer.init(params), params)
        assert {leaf.dtype for leaf in jax.tree.leaves(updates)} == {jnp.dtype(dtype)}
        again, _ = jax.jit(optimizer.update)(params, state, params)
        assert jax.tree.structure(again) == jax.tree.structure(updates)


@pytest.mark.parametrize(
    "case", ["masked, a prefix", "masked, a function", "partition", "selective_transform"]
)
def test_tree_map_params_sees_through_a_mask(case):
    optimizer = TWINS[case](optim)
    state = optimizer.init(params_of("float32"))
    mapped = optax.tree_map_params(optimizer, lambda x: x + 1, state, transform_non_params=lambda x: -x - 1)
    expected = optax.tree_map_params(
        TWINS[case](optax), lambda x: x + 1, state, transform_non_params=lambda x: -x - 1
    )
    assert_same(mapped, expected, 0)
    assert any((leaf == 1).all() for leaf in jax.tree.leaves(mapped))


def test_extra_arguments_like_the_updates_are_masked_when_asked():
    def look(updates, state, params=None, *, tags, **extra):
        return jax.tree.map(lambda u, tag: u * tag, updates, tags), state

    inner = optim.GradientTransformationExtraArgs(lambda params: (), look)
    optimizer = optim.masked(inner, {"a": True, "b": False}, mask_compatible_extra_args=True)
    updates, _ = optimizer.update({"a": 2.0, "b": 3.0}, optim.MaskedState(()), tags={"a": 5.0, "b": 7.0})
    assert updates == {"a": 10.0, "b": 3.0}


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (
            lambda p: optim.masked(optim.scale(1.0), {"dense": True, "Out": True, "scale": True}).init(p),
            "masked: the mask does not fit the parameters: it has 'Out', and they do not; they are: ",
        ),
        (
            lambda p: optim.masked(optim.scale(1.0), {"dense": True}).init(p),
            "masked: the mask does not fit the parameters: it says nothing of 'nothing'",
        ),
        (
            lambda p: optim.partition({"a": optim.scale(1.0)}, {**LABELS, "scale": "A"}).init(p),
            "partition: 'dense/bias' is labelled 'b', which names no transform; there are: 'a'",
        ),
        (
            lambda p: optim.partition({"a": optim.scale(1.0)}, {"dense": "a"}).init(p),
            "partition: the tree of labels does not fit the parameters: it says nothing of 'nothing'",
        ),
        (lambda p: optim.MultiSteps(optim.scale(1.0), 0), "got every_k_schedule=0"),
        (
            lambda p: optim.MultiSteps(optim.scale(1.0), 2, should_skip_update_fn=two_answers).init(p),
            r"must return a boolean scalar and its info, got float32\[2\]",
        ),
        (lambda p: optim.lookahead(optim.scale(1.0), 0, 0.5), "sync_period, got 0"),
        (
            lambda p: optim.lookahead(optim.sgd(1.0), 2, 0.5).update(p, (), p),
            r"needs params=LookaheadParams\(fast, slow\), got dict; begin with LookaheadParams.init_synced",
        ),
        (
            lambda p: optim.inject_hyperparams(optim.scale, static_args="rate"),
            r"\['rate'\] are not arguments of the factory; it has \['step_size'\]",
        ),
    ],
    ids=["stray mask", "short mask", "label", "short labels", "k", "skip", "period", "no slow", "static"],
)  # fmt: skip
def test_a_mistake_is_told(wrong, message):
    with pytest.raises(ValueError, match=message):
        wrong(params_of("float32"))
