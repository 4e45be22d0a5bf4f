"""Normalisation, against Flax and against closed forms in float64."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

import purenets as pn
from purenets.layers.norm import moments
from tests.layers.peers import assert_agrees_with_flax, assert_trees_close, normal, randomised

PARTS = [("scale", "bias"), ("scale",), ("bias",), ()]


def of(parts, names=("scale", "bias")):
    """The keywords of ours and of Flax that leave out all params but these."""
    ours = {name: name in parts for name in names}
    return ours, {f"use_{name}": value for name, value in ours.items()}


@pytest.mark.covers("N05")
@pytest.mark.parametrize("parts", PARTS, ids=" ".join)
def test_layer_norm_agrees_with_flax(parts):
    ours, theirs = of(parts)
    assert_agrees_with_flax(pn.layer_norm(6, **ours), nn.LayerNorm(**theirs), normal(3, 4, 6) * 3 + 1)


@pytest.mark.parametrize("parts", [("scale",), ()], ids=" ".join)
def test_rms_norm_agrees_with_flax(parts):
    ours, theirs = of(parts, ("scale",))
    assert_agrees_with_flax(pn.rms_norm(6, **ours), nn.RMSNorm(**theirs), normal(3, 4, 6) * 3 + 1)


@pytest.mark.covers("N06")
@pytest.mark.parametrize("parts", PARTS, ids=" ".join)
def test_instance_norm_agrees_with_flax(parts):
    ours, theirs = of(parts)
    assert_agrees_with_flax(pn.instance_norm(6, **ours), nn.InstanceNorm(**theirs), normal(2, 3, 4, 6))


@pytest.mark.covers("N07")
@pytest.mark.parametrize(
    ("groups", "shape"),
    [(1, (2, 3, 4, 6)), (2, (2, 3, 4, 6)), (6, (2, 3, 4, 6)), (1, (5, 6)), (3, (5, 6))],
    ids=str,
)
def test_group_norm_agrees_with_flax(groups, shape):
    assert_agrees_with_flax(pn.group_norm(6, groups), nn.GroupNorm(groups), normal(*shape) * 3 + 1)


@pytest.mark.covers("N03", "DEC-22")
@pytest.mark.parametrize("parts", PARTS, ids=" ".join)
@pytest.mark.parametrize("train", [True, False], ids=["training", "evaluation"])
def test_batch_norm_agrees_with_flax(parts, train):
    ours, theirs = of(parts)
    module = nn.BatchNorm(use_running_average=not train, **theirs)

    class Twin:
        init = staticmethod(module.init)

        @staticmethod
        def apply(variables, x):
            stats = {"mean": jnp.zeros(6), "var": jnp.ones(6)}
            return module.apply({**variables, "batch_stats": stats}, x, mutable=["batch_stats"])[0]

    assert_agrees_with_flax(
        pn.batch_norm(6, **ours), Twin, normal(3, 4, 6) * 3 + 1, ours_kw={"train": train}
    )  # fmt: skip


@pytest.mark.covers("N03", "N04", "DEC-22")
def test_running_statistics_and_params_agree_with_flax_over_training_steps():
    ours = pn.serial(pn.dense(4, 5), pn.batch_norm(5, momentum=0.9), jnp.tanh, pn.dense(5, 1))

    class Theirs(nn.Module):
        @nn.compact
        def __call__(self, x, train):
            x = nn.Dense(5, name="dense_1")(x)
            x = nn.BatchNorm(momentum=0.9, use_running_average=not train, name="batch_norm_1")(x)
            return nn.Dense(1, name="dense_2")(jnp.tanh(x))

    theirs, batches = Theirs(), normal(6, 8, 4) * 2 + 1
    params, state = ours.init(jax.random.key(0))
    params = randomised(params)

    def ours_loss(params, state, x):
        out, state = ours.apply(params, state, x, train=True)
        return jnp.mean(jnp.square(out - jnp.sum(x, -1, keepdims=True))), state

    def theirs_loss(params, stats, x):
        variables = {"params": params, "batch_stats": stats}
        out, new = theirs.apply(variables, x, True, mutable=["batch_stats"])
        return jnp.mean(jnp.square(out - jnp.sum(x, -1, keepdims=True))), new["batch_stats"]

    def train(loss, params, state):
        def step(carry, x):
            slopes, state = jax.grad(loss, has_aux=True)(*carry, x)
            return (jax.tree.map(lambda p, g: p - 0.1 * g, carry[0], slopes), state), None

        return jax.jit(lambda params, state: jax.lax.scan(step, (params, state), batches)[0])(params, state)

    ours_end, theirs_end = train(ours_loss, params, state), train(theirs_loss, params, state)
    assert_trees_close(ours_end, theirs_end, rtol=1e-4, atol=1e-5)
    assert not np.allclose(ours_end[1]["batch_norm_1"]["mean"], 0)
    evaluated = ours.apply(*ours_end, batches[0])[0]
    variables = {"params": theirs_end[0], "batch_stats": theirs_end[1]}
    np.testing.assert_allclose(evaluated, theirs.apply(variables, batches[0], False), rtol=1e-4, atol=1e-5)


@pytest.mark.covers("N02", "N07")
@pytest.mark.parametrize("axes", [0, -1, (0, 1), (1,), (0, 1, 2)], ids=str)
def test_normalised_values_have_mean_zero_and_variance_one_over_the_axes(x64, axes):
    x = np.random.default_rng(0).normal(2, 3, (4, 5, 6))
    y = pn.normalize(jnp.asarray(x), axes, 0.0)
    expected = (x - x.mean(axes, keepdims=True)) / x.std(axes, keepdims=True)
    np.testing.assert_allclose(y, expected, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(np.mean(y, axes), 0, atol=1e-12)
    np.testing.assert_allclose(np.var(y, axes), 1, rtol=1e-12)


@pytest.mark.covers("N02")
def test_without_eps_a_constant_feature_is_zero_over_zero():
    x = normal(4, 2).at[:, 1].set(3.0)
    y = pn.normalize(x, 0, 0.0)
    assert np.isfinite(y[:, 0]).all()
    assert np.isnan(y[:, 1]).all()
    np.testing.assert_array_equal(pn.normalize(x, 0, 1e-5)[:, 1], 0)


@pytest.mark.covers("N03")
def test_eps_stands_under_the_root_beside_the_biased_variance(x64):
    x = np.array([[1.0], [4.0], [4.0]])
    params = {"scale": jnp.array([2.0]), "bias": jnp.array([0.5])}
    state = {"mean": jnp.zeros(1), "var": jnp.ones(1)}
    y, _ = pn.batch_norm(1, eps=0.25).apply(params, state, x, train=True)
    # Mean 3, biased variance 2, so the denominator is sqrt(2.25) = 1.5.
    np.testing.assert_allclose(y[:, 0], [2 * -2 / 1.5 + 0.5, 2 / 1.5 + 0.5, 2 / 1.5 + 0.5], rtol=1e-12)


@pytest.mark.covers("N03")
def test_the_deviation_as_scale_and_the_mean_as_bias_recover_the_input(x64):
    x = np.random.default_rng(0).normal(2, 3, (7, 5))
    params = {"scale": jnp.sqrt(x.var(0) + 1e-5), "bias": jnp.asarray(x.mean(0))}
    _, state = pn.batch_norm(5).init(jax.random.key(0))
    y, _ = pn.batch_norm(5).apply(params, state, x, train=True)
    np.testing.assert_allclose(y, x, rtol=1e-12, atol=1e-12)


@pytest.mark.covers("N03")
@pytest.mark.parametrize("factor", [1e-3, 7.0, 1e4])
def test_the_scale_and_shift_of_a_feature_make_no_difference_to_its_normal_form(x64, factor):
    x = np.random.default_rng(0).normal(size=(7, 5))
    moved = pn.normalize(jnp.asarray(factor * x + 3), 0, 0.0)
    np.testing.assert_allclose(moved, pn.normalize(jnp.asarray(x), 0, 0.0), atol=1e-9)


@pytest.mark.covers("N04")
def test_in_evaluation_an_example_does_not_depend_on_its_batch_mates():
    model = pn.batch_norm(3)
    params, state = randomised(model.init(jax.random.key(0)))
    state = jax.tree.map(jnp.square, state)
    x = normal(4, 3)
    together = model.apply(params, state, x)[0]
    alone = jnp.stack([model.apply(params, state, row)[0] for row in x])
    np.testing.assert_array_equal(together, alone)
    trained = model.apply(params, state, x, train=True)[0]
    assert not np.allclose(trained[:2], model.apply(params, state, x[:2], train=True)[0])


@pytest.mark.covers("N04", "DEC-22")
@pytest.mark.parametrize("momentum", [0.99, 0.5])
@pytest.mark.parametrize("unbiased", [False, True], ids=["of n", "of n - 1"])
def test_running_statistics_are_the_geometric_average_of_those_of_the_batches(x64, momentum, unbiased):
    batches = np.random.default_rng(0).normal(2, 3, (5, 4, 2, 3))
    model = pn.batch_norm(3, momentum=momentum, unbiased=unbiased)
    params, state = model.init(jax.random.key(0))
    state = jax.tree.map(lambda leaf: leaf.astype(jnp.float64), state)
    for x in batches:
        y, state = model.apply(params, state, x, train=True)
    weights = (1 - momentum) * momentum ** np.arange(4, -1, -1)
    means = batches.mean((1, 2))
    variances = batches.var((1, 2), ddof=int(unbiased))
    np.testing.assert_allclose(state["mean"], weights @ means, rtol=1e-12)
    np.testing.assert_allclose(state["var"], momentum**5 + weights @ variances, rtol=1e-12)
    # The normal form itself always has the variance of 1/n.
    np.testing.assert_allclose(y.var((0, 1)), 1, rtol=1e-4)


def test_the_default_momentum_is_that_of_flax():
    state = {"mean": jnp.zeros(1), "var": jnp.ones(1)}
    model = pn.batch_norm(1, scale=False, bias=False)
    _, state = model.apply({}, state, jnp.array([[1.0], [5.0]]), train=True)
    np.testing.assert_allclose(state["mean"], 0.01 * 3, rtol=1e-6)
    np.testing.assert_allclose(state["var"], 0.99 + 0.01 * 4, rtol=1e-6)


@pytest.mark.covers("N07")
def test_batch_layer_and_instance_norm_are_one_function_with_other_axes():
    x = normal(4, 5, 3)
    plain = {"scale": False, "bias": False, "eps": 1e-5}
    rows = x.reshape(20, 3)
    batch = pn.batch_norm(3, **plain).apply({}, {"mean": jnp.zeros(3), "var": jnp.ones(3)}, x, train=True)[0]
    np.testing.assert_allclose(batch, pn.normalize(x, (0, 1), 1e-5), rtol=1e-6)
    transposed = pn.layer_norm(20, **plain).apply({}, {}, rows.T)[0].T.reshape(x.shape)
    np.testing.assert_allclose(batch, transposed, rtol=1e-5, atol=1e-6)
    swapped = pn.layer_norm(5, **plain).apply({}, {}, jnp.swapaxes(x, 1, 2))[0]
    instance = pn.instance_norm(3, **plain).apply({}, {}, x)[0]
    np.testing.assert_allclose(instance, jnp.swapaxes(swapped, 1, 2), rtol=1e-5, atol=1e-6)


@pytest.mark.covers("N07")
def test_group_norm_contains_instance_norm_and_layer_norm():
    x, plain = normal(4, 5, 6), {"scale": False, "bias": False}
    single = pn.group_norm(6, 6, **plain).apply({}, {}, x)[0]
    np.testing.assert_allclose(single, pn.instance_norm(6, **plain).apply({}, {}, x)[0], rtol=1e-5, atol=1e-6)
    whole = pn.group_norm(6, 1, **plain).apply({}, {}, x[:, 0])[0]
    np.testing.assert_allclose(
        whole, pn.layer_norm(6, **plain).apply({}, {}, x[:, 0])[0], rtol=1e-5, atol=1e-6
    )


@pytest.mark.covers("N05", "N06")
@pytest.mark.parametrize(
    "model", [pn.layer_norm(6), pn.rms_norm(6), pn.instance_norm(6), pn.group_norm(6, 3)], ids=str
)
def test_the_norms_of_one_example_are_the_same_in_both_modes_and_in_any_batch(model):
    x = normal(4, 5, 6)
    params, state = model.init(jax.random.key(0))
    whole = model.apply(params, state, x, train=True)[0]
    np.testing.assert_array_equal(whole, model.apply(params, state, x)[0])
    np.testing.assert_allclose(whole[1:2], model.apply(params, state, x[1:2])[0], rtol=1e-6, atol=1e-6)


def test_rms_norm_divides_by_the_root_mean_square(x64):
    x = np.random.default_rng(0).normal(2, 3, (4, 6))
    scale = np.arange(6.0)
    y, _ = pn.rms_norm(6, eps=0.5).apply({"scale": scale}, {}, jnp.asarray(x))
    expected = scale * x / np.sqrt(np.mean(x**2, -1, keepdims=True) + 0.5)
    np.testing.assert_allclose(y, expected, rtol=1e-12)


EVERY_NORM = [pn.layer_norm(6), pn.rms_norm(6), pn.instance_norm(6), pn.group_norm(6, 3), pn.batch_norm(6)]


@pytest.mark.parametrize("model", EVERY_NORM, ids=str)
@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16], ids=["bfloat16", "float16"])
@pytest.mark.parametrize("train", [True, False], ids=["training", "evaluation"])
def test_half_precision_comes_out_as_it_went_in_with_statistics_in_float32(model, dtype, train):
    x = normal(4, 300, 6, dtype=dtype) * 50 + 100
    params, state = model.init(jax.random.key(0))
    half, half_state = model.apply(params, state, x, train=train)
    full, full_state = model.apply(params, state, x.astype(jnp.float32), train=train)
    assert half.dtype == dtype
    np.testing.assert_array_equal(half, full.astype(dtype))
    assert_trees_close(half_state, full_state, rtol=0, atol=0)
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(half_state))


@pytest.mark.parametrize("model", [pn.layer_norm(6), pn.group_norm(6, 1), pn.batch_norm(6)], ids=str)
def test_a_mean_that_is_large_beside_the_deviation_does_not_spoil_the_variance(model):
    x = np.random.default_rng(0).normal(5000, 1, (64, 6)).astype(np.float32)
    exact, axis = x.astype(np.float64), 0 if "batch" in str(model) else 1
    expected = (exact - exact.mean(axis, keepdims=True)) / np.sqrt(exact.var(axis, keepdims=True) + 1e-5)
    params, state = model.init(jax.random.key(0))
    y, _ = model.apply(params, state, jnp.asarray(x), train=True)
    np.testing.assert_allclose(y, expected, atol=2e-3)
    # Negative control: the difference E[x²] - E[x]², which saves a pass, has lost all digits here.
    fast = np.mean(x * x, axis) - np.square(np.mean(x, axis))
    assert not np.allclose(fast, exact.var(axis), rtol=0.3)


def test_under_a_named_vmap_batch_norm_is_that_of_the_whole_batch():
    x = normal(6, 5, 3) * 2 + 1
    weights = normal(6, 5, 3, seed=3)
    whole = pn.batch_norm(3, unbiased=True)
    member = pn.batch_norm(3, unbiased=True, axis_name="batch")
    params, state = whole.init(jax.random.key(0))
    params = randomised(params)

    def apart(params, state, x):
        run = jax.vmap(
            lambda x: member.apply(params, state, x, train=True), axis_name="batch", out_axes=(0, None)
        )
        return run(x)

    def loss(run):
        def weighted(params, x):
            y, new = run(params, state, x)
            return jnp.sum(weights * y), (y, new)

        return jax.jit(jax.value_and_grad(weighted, (0, 1), has_aux=True))(params, x)

    expected = loss(lambda params, state, x: whole.apply(params, state, x, train=True))
    assert_trees_close(loss(apart), expected)
    # One value each, as in a model of single examples, is enough where the members are several.
    single = jax.vmap(
        lambda x: member.apply(params, state, x, train=True)[0], axis_name="batch"
    )(x[:, 0])  # fmt: skip
    np.testing.assert_allclose(
        single, whole.apply(params, state, x[:, 0], train=True)[0], rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize("explicit", [False, True], ids=["auto mesh", "explicit mesh"])
def test_over_a_sharded_batch_the_statistics_are_global(explicit):
    model = pn.batch_norm(4)
    params, state = model.init(jax.random.key(0))
    x = normal(16, 3, 4) * 2 + 1

    def step(params, state, x):
        def loss(params):
            y, new = model.apply(params, state, x, train=True)
            return jnp.sum(jnp.sin(y)), new

        return jax.value_and_grad(loss, has_aux=True)(params)

    expected = jax.jit(step)(params, state, x)
    devices = jax.devices("cpu")
    mesh = (
        jax.make_mesh((8,), ("batch",)) if explicit else jax.sharding.Mesh(np.array(devices[:8]), ("batch",))
    )
    sharded, same = NamedSharding(mesh, PartitionSpec("batch")), NamedSharding(mesh, PartitionSpec())
    with jax.set_mesh(mesh):
        found = jax.jit(step)(*jax.device_put((params, state), same), jax.device_put(x, sharded))
    assert_trees_close(jax.device_get(found), jax.device_get(expected))


def test_a_zero_scale_makes_a_residual_block_begin_as_the_identity():
    zero = jax.nn.initializers.zeros
    block = pn.residual(pn.serial(pn.dense(4, 4), pn.batch_norm(4, scale_init=zero)))
    params, state = block.init(jax.random.key(0))
    x = normal(3, 4)
    np.testing.assert_array_equal(block.apply(params, state, x, train=True)[0], x)


@pytest.mark.parametrize("shape", [(1, 4), (4,), (1, 1, 4)], ids=str)
def test_a_single_example_in_training_is_refused(shape):
    params, state = pn.batch_norm(4).init(jax.random.key(0))
    shown = ", ".join(map(str, shape))
    message = rf"batch_norm\(4\) needs at least two values per feature in training, got float32\[{shown}\]"
    with pytest.raises(ValueError, match=message) as caught:
        pn.batch_norm(4).apply(params, state, jnp.zeros(shape), train=True)
    assert any("a single example has no batch statistics" in note for note in caught.value.__notes__)
    assert pn.batch_norm(4).apply(params, state, jnp.zeros(shape))[0].shape == shape


@pytest.mark.parametrize("groups", [4, 0, 7])
def test_groups_that_do_not_divide_the_features_are_refused(groups):
    with pytest.raises(
        ValueError, match=rf"group_norm\(6, {groups}\) needs a number of groups that divides 6"
    ):
        pn.group_norm(6, groups)


@pytest.mark.parametrize(
    ("model", "shape", "message"),
    [
        (pn.instance_norm(6), (4, 6), r"instance_norm\(6\) needs \[batch, ..., channels\] with space"),
        (pn.group_norm(6, 2), (6,), r"group_norm\(6, 2\) needs \[batch, ..., 6\], got float32\[6\]"),
        (
            pn.batch_norm(3),
            (8, 3, 5, 5),
            r"batch_norm\(3\) needs a last axis of 3, got float32\[8, 3, 5, 5\]",
        ),
    ],
    ids=["no space", "no batch", "channels first"],
)
def test_inputs_without_the_axes_of_a_norm_are_refused(model, shape, message):
    params, state = model.init(jax.random.key(0))
    with pytest.raises(ValueError, match=message) as caught:
        model.apply(params, state, jnp.zeros(shape), train=True)
    if shape == (8, 3, 5, 5):
        assert any("not last: the input may be transposed" in note for note in caught.value.__notes__)


@pytest.mark.parametrize("model", EVERY_NORM, ids=str)
def test_complex_and_integer_inputs_are_refused(model):
    params, state = model.init(jax.random.key(0))
    with pytest.raises(ValueError, match=r"normalisation needs real numbers, got complex64\[4, 5, "):
        model.apply(params, state, jnp.zeros((4, 5, 6), jnp.complex64), train=True)
    with pytest.raises(ValueError, match=r"needs floating numbers, got int32\[4, 5, 6\]"):
        model.apply(params, state, jnp.zeros((4, 5, 6), jnp.int32), train=True)


@pytest.mark.covers("N01", "W17")
def test_normalised_features_let_gradient_descent_converge_in_far_fewer_steps(x64):
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.normal([0, 5, -20], [0.1, 1, 30], (60, 3)))
    target = x @ jnp.array([10.0, 1.0, 0.1])

    def condition(x):
        return np.linalg.cond(np.asarray(x.T @ x))

    def steps(x):
        centred, curvature = target - target.mean(), np.linalg.eigvalsh(np.asarray(x.T @ x / 60))[-1]

        def unsolved(carry):
            w, n = carry
            return (jnp.max(jnp.abs(x.T @ (x @ w - centred))) / 60 > 1e-6) & (n < 100_000)

        def step(carry):
            w, n = carry
            return w - x.T @ (x @ w - centred) / 60 / curvature, n + 1

        return int(jax.lax.while_loop(unsolved, step, (jnp.zeros(3), 0))[1])

    normal_form = pn.normalize(x, 0, 0.0)
    assert condition(x) > 1e4
    assert condition(normal_form) < 3
    assert steps(normal_form) < 100
    assert steps(x) > 10_000


def test_the_variance_has_the_right_first_and_second_derivatives(x64):
    """Deviations are taken from a mean that is held constant; nothing of it may show."""
    x, values = jax.random.normal(jax.random.key(0), (5, 2)), jnp.arange(1.0, 3)
    ours = lambda x: jnp.vdot(values, jnp.sin(moments(x, 0)[1].ravel()))
    plain = lambda x: jnp.vdot(values, jnp.sin(jnp.mean(x**2, 0) - jnp.mean(x, 0) ** 2))
    for derivative in (jax.grad, jax.hessian, lambda f: jax.jacrev(jax.jacfwd(f))):
        np.testing.assert_allclose(derivative(ours)(x), derivative(plain)(x), rtol=1e-12, atol=1e-14)
