"""Gradients checked by differences, made by hand, multiplied through layers and time, and read."""

from itertools import pairwise

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from purenets import gradients, losses
from purenets.layers import dense

SIZES = (3, 5, 4, 2)


def network(dtype=None):
    """Weights ``[out, in]`` and biases of a sigmoid network, as the layers' formulas are usually written."""
    rng = np.random.default_rng(0)
    draw = lambda *shape: jnp.asarray(rng.normal(size=shape), dtype)
    return {
        f"layer_{number}": {"W": draw(n_out, n_in), "b": draw(n_out)}
        for number, (n_in, n_out) in enumerate(pairwise(SIZES), start=1)
    }


def forward(params, x):
    for layer in params.values():
        x = jax.nn.sigmoid(layer["W"] @ x + layer["b"])
    return x


@jax.jit
def cost(params, x, target):
    return jnp.sum((forward(params, x) - target) ** 2)


def delta_rule(params, x, target):
    """``delta^L = s'(z^L) grad C``, ``delta^l = s'(z^l) (W^{l+1})^T delta^{l+1}``, in NumPy; ``dC/db = delta``."""
    layers = [jax.tree.map(np.asarray, layer) for layer in params.values()]
    activations = [np.asarray(x)]
    for layer in layers:
        activations.append(1 / (1 + np.exp(-(layer["W"] @ activations[-1] + layer["b"]))))
    grads, back = {}, 2 * (activations[-1] - target)
    for number in range(len(layers), 0, -1):
        a = activations[number]
        delta = a * (1 - a) * back
        grads[f"layer_{number}"] = {"W": np.outer(delta, activations[number - 1]), "b": delta}
        back = layers[number - 1]["W"].T @ delta
    return grads


@pytest.mark.covers("G03", "G08")
def test_the_delta_rule_by_hand_equals_jax_on_every_leaf(x64):
    params = network()
    x, target = jnp.array([0.5, -1.0, 2.0]), jnp.array([0.0, 1.0])
    grads, by_hand = jax.jit(jax.grad(cost))(params, x, target), delta_rule(params, x, target)
    assert jax.tree.structure(grads) == jax.tree.structure(params) == jax.tree.structure(by_hand)
    for g, h, p in zip(*map(jax.tree.leaves, (grads, by_hand, params)), strict=True):
        assert g.shape == p.shape
        np.testing.assert_allclose(g, h, rtol=1e-12)


@pytest.mark.covers("G09")
def test_central_differences_equal_the_gradient_whatever_the_precision_of_the_parameters():
    params = network()
    fn = lambda p: cost(p, jnp.array([0.5, -1.0, 2.0]), jnp.array([0.0, 1.0]))
    measured = gradients.central_differences(fn, params)
    with jax.enable_x64(True):
        exact = jax.jit(jax.grad(fn))(jax.tree.map(lambda p: p.astype(jnp.float64), params))
    assert jax.tree.structure(measured) == jax.tree.structure(params)
    for m, e in zip(jax.tree.leaves(measured), jax.tree.leaves(exact), strict=True):
        assert m.dtype == np.float64
        np.testing.assert_allclose(m, e, rtol=1e-8, atol=1e-10)


@pytest.mark.covers("G09")
def test_the_error_of_central_differences_is_of_second_order():
    """The next term of the series is ``e^2 f''' / 6``; one-sided differences would fall only tenfold."""
    point = 0.7
    errors = [
        gradients.central_differences(lambda t: jnp.exp(2 * t), point, e) - 2 * np.exp(2 * point)
        for e in (1e-1, 1e-2, 1e-3)
    ]
    np.testing.assert_allclose(
        errors, [8 * np.exp(2 * point) / 6 * e**2 for e in (1e-1, 1e-2, 1e-3)], rtol=1e-2
    )


@pytest.mark.covers("G09")
def test_a_wrong_gradient_does_not_pass_the_check():
    @jax.custom_vjp
    def wrong(x):
        return jnp.sum(x**3)

    wrong.defvjp(lambda x: (wrong(x), x), lambda x, g: (g * 2 * x**2,))
    x = jnp.array([1.0, -2.0])
    measured = gradients.central_differences(wrong, x)
    np.testing.assert_allclose(measured, 3 * np.asarray(x) ** 2, rtol=1e-8)
    assert np.abs(measured - jax.grad(wrong)(x)).max() > 3


@pytest.mark.covers("G10")
@pytest.mark.parametrize("transform", [jax.jit, jax.grad, jax.vmap], ids=["jit", "grad", "vmap"])
def test_the_check_cannot_be_left_on_inside_a_training_step(transform):
    step = lambda p: jnp.sum(jnp.asarray(gradients.central_differences(lambda t: t**2, p)))
    with pytest.raises(ValueError, match="check gradients before training, outside the jitted step"):
        transform(step)(jnp.ones(2) if transform is jax.vmap else 1.0)


def test_what_cannot_be_checked_is_refused():
    check = gradients.central_differences
    with pytest.raises(ValueError, match="real floating point parameters, got int32 at 'a/0'"):
        check(lambda p: p["a"][0], {"a": [jnp.arange(3)]})
    with pytest.raises(ValueError, match="real floating point parameters, got complex64"):
        check(jnp.sum, jnp.ones(2, jnp.complex64))
    with pytest.raises(ValueError, match="must return a float64 scalar, got"):
        check(lambda p: p**2, jnp.ones(2))
    with pytest.raises(ValueError, match="must return a float64 scalar") as caught:
        check(lambda p: jnp.sum(p).astype(jnp.float32), jnp.ones(2))
    assert caught.value.__notes__ == ["its parameters were float64, so it casts to float32 inside"]
    with pytest.raises(ValueError, match="epsilon must be positive, got 0"):
        check(jnp.sum, jnp.ones(2), epsilon=0)


@pytest.mark.covers("G07", "G08")
def test_products_with_jacobian_and_hessian_equal_the_full_matrices(x64):
    fn = jax.jit(lambda x: jnp.array([jnp.sin(x[0]) * x[1], x[1] * x[2] ** 2]))
    scalar = jax.jit(lambda x: jnp.sum(fn(x) ** 2))
    x, v, u = jnp.array([0.3, -1.2, 2.0]), jnp.array([1.0, 0.5, -0.25]), jnp.array([2.0, -1.0])
    jacobian, hessian = jax.jit(lambda x: (jax.jacobian(fn)(x), jax.hessian(scalar)(x)))(x)
    assert jacobian.shape == (2, 3)
    np.testing.assert_allclose(gradients.jacobian_vector(fn, x, v), jacobian @ v, rtol=1e-12)
    np.testing.assert_allclose(gradients.vector_jacobian(fn, x, u), jacobian.T @ u, rtol=1e-12)
    np.testing.assert_allclose(gradients.hessian_vector(scalar, x, v), hessian @ v, rtol=1e-12)
    along = gradients.directional_derivative(scalar, x, v)
    np.testing.assert_allclose(along, jax.grad(scalar)(x) @ v, rtol=1e-12)
    measured = gradients.central_differences(lambda t: scalar(x + t * v), 0.0)
    np.testing.assert_allclose(along, measured, rtol=1e-8)


@pytest.mark.covers("G05", "G06", "G07")
def test_layers_that_know_their_own_backward_step_compose_to_the_gradient_in_one_sweep(x64):
    """Each layer gives ``dJ/dx_in`` and ``dJ/dtheta`` from ``dJ/dx_out``."""
    layers = [dense(3, 4), dense(4, 5), dense(5, 2)]
    params = [layer.init(jax.random.key(k))[0] for k, layer in enumerate(layers)]
    params = jax.tree.map(lambda p: p.astype(jnp.float64) + 0.1, params)
    apply = [jax.jit(lambda p, x, layer=layer: jnp.tanh(layer.apply(p, {}, x)[0])) for layer in layers]
    x, target = jnp.ones((6, 3)), jnp.zeros((6, 2))

    def total(params):
        out = x
        for fn, p in zip(apply, params, strict=True):
            out = fn(p, out)
        return jnp.sum((out - target) ** 2)

    stored, out = [], x
    for fn, p in zip(apply, params, strict=True):
        out, backward = jax.vjp(fn, p, out)
        stored.append(backward)
    by_layers = []
    signal = 2 * (out - target)
    for backward in reversed(stored):
        grad, signal = backward(signal)
        by_layers.insert(0, grad)
    for a, b in zip(
        jax.tree.leaves(by_layers), jax.tree.leaves(jax.jit(jax.grad(total))(params)), strict=True
    ):
        np.testing.assert_allclose(a, b, rtol=1e-12)


@pytest.mark.covers("G06")
@pytest.mark.parametrize("depth", [3, 6])
def test_terms_are_reused_so_that_the_products_grow_with_the_depth_and_not_its_square(depth):
    """Forward one product a layer, backward one for each weight and one for each inner signal: ``3 L - 1``."""

    def fn(weights):
        x = jnp.ones((4, 2))
        for weight in weights:
            x = jnp.tanh(jax.lax.dot(weight, x))
        return jnp.sum(x)

    program = str(jax.make_jaxpr(jax.grad(fn))([jnp.ones((4, 4))] * depth))
    assert program.count("dot_general") == 3 * depth - 1


@pytest.mark.covers("G06")
def test_the_backward_pass_costs_a_small_multiple_of_the_forward_pass():
    def fn(weights):
        x = jnp.ones((64, 32))
        for weight in weights:
            x = jnp.tanh(weight @ x)
        return jnp.sum(x)

    weights = [jax.ShapeDtypeStruct((64, 64), jnp.float32)] * 12
    flops = lambda f: jax.jit(f).lower(weights).compile().cost_analysis()["flops"]
    assert flops(fn) > 12 * 2 * 64 * 64 * 32
    assert flops(jax.value_and_grad(fn)) < 4 * flops(fn)


@pytest.mark.covers("G01", "G02")
def test_the_chain_rule_multiplies_along_a_path_and_adds_over_paths(x64):
    s = 0.6
    y, dy = np.sin(s), np.cos(s)
    np.testing.assert_allclose(jax.grad(lambda s: jnp.exp(jnp.sin(s)))(s), np.exp(y) * dy, rtol=1e-14)
    z = lambda s: (s**2) * jnp.exp(3 * s)
    x, w = s**2, np.exp(3 * s)
    np.testing.assert_allclose(jax.grad(z)(s), w * 2 * s + x * 3 * w, rtol=1e-14)


@pytest.mark.covers("G04", "M27")
def test_one_neuron_per_layer_gives_the_printed_product(x64):
    """``dC/dw1 = a0 s'(z1) w2 s'(z2) w3 s'(z3) 2 (a3 - y)``: each layer back is one factor ``w s'(z)``."""
    params = {"w": jnp.array([0.8, -1.5, 2.0]), "b": jnp.array([0.1, 0.2, -0.3])}

    def chain(params, a=0.9):
        for k in range(3):
            a = jax.nn.sigmoid(params["w"][k] * a + params["b"][k])
        return (a - 0.25) ** 2

    a, slopes = [0.9], []
    for w, b in zip(np.asarray(params["w"]), np.asarray(params["b"]), strict=True):
        a.append(1 / (1 + np.exp(-(w * a[-1] + b))))
        slopes.append(a[-1] * (1 - a[-1]))
    w = np.asarray(params["w"])
    expected = a[0] * slopes[0] * w[1] * slopes[1] * w[2] * slopes[2] * 2 * (a[3] - 0.25)
    np.testing.assert_allclose(jax.grad(chain)(params)["w"][0], expected, rtol=1e-12)
    np.testing.assert_allclose(gradients.central_differences(chain, params)["w"][0], expected, rtol=1e-7)


def deep(scale, depth=12):
    """The gradient of a sigmoid network of one width whose weights have the given scale."""
    keys = jax.random.split(jax.random.key(0), depth)
    params = {
        f"layer_{k}": {"kernel": scale * jax.random.normal(keys[k], (16, 16)) / 4} for k in range(depth)
    }

    def fn(params, squash):
        x = jnp.ones(16)
        for k in range(depth):
            x = squash(params[f"layer_{k}"]["kernel"] @ x)
        return jnp.sum(x**2)

    return lambda squash: jax.jit(jax.grad(fn), static_argnums=1)(params, squash)


@pytest.mark.covers("G14")
def test_the_monitor_tells_vanishing_exploding_and_healthy_gradients_apart():
    flow = lambda grads: gradients.gradient_flow(gradients.layer_norms(grads))
    vanishing = flow(deep(1.0)(jax.nn.sigmoid))
    assert vanishing.verdict == "vanishing"
    assert vanishing.per_layer < 0.4
    assert flow(deep(1.0)(jnp.tanh)).verdict == "healthy"
    exploding = flow(deep(8.0)(jnp.sin))
    assert exploding.verdict == "exploding"
    assert exploding.per_layer > 1.8
    norms = gradients.layer_norms(deep(1.0)(jax.nn.sigmoid))
    assert list(norms) == [f"layer_{k}" for k in range(12)], "and not layer_10 before layer_2"


@pytest.mark.covers("G14")
def test_norms_are_by_layer_in_the_order_given_and_traceable():
    grads = {
        "in": {"kernel": jnp.array([3.0]), "bias": jnp.array(4.0)},
        "block": {"up": {"kernel": jnp.ones(4)}},
    }
    norms = jax.jit(lambda g: gradients.layer_norms(g, order=["in", "block/up"]))(grads)
    assert {name: float(norm) for name, norm in norms.items()} == {"in": 5.0, "block/up": 2.0}
    half = gradients.layer_norms({"a": {"w": jnp.full(4, 300.0, jnp.float16)}})
    assert half["a"] == 600.0, "squares are taken in float32"
    with pytest.raises(ValueError, match=r"order must name each layer once; got \['in'\]"):
        gradients.layer_norms(grads, order=["in"])


@pytest.mark.covers("G14")
@pytest.mark.parametrize(
    ("norms", "verdict"),
    [([1e-9, 1.0], "vanishing"), ([1e5, 1.0], "exploding"), ([1.0, np.nan, 1.0], "exploding"),
     ([np.inf, 1.0], "exploding"), ([1.0, 2.0, 3.0], "healthy"), ([0.0, 0.0], "vanishing"),
     ([1.0, 0.0], "exploding"), ([1.0], "healthy")],
)  # fmt: skip
def test_the_verdict_follows_from_the_first_and_the_last_norm(norms, verdict):
    assert gradients.gradient_flow({str(k): norm for k, norm in enumerate(norms)}).verdict == verdict


def test_there_must_be_a_layer_to_judge():
    with pytest.raises(ValueError, match="no layer to judge"):
        gradients.gradient_flow({})


@pytest.mark.covers("G16", "W20", "M55")
def test_a_factor_a_little_off_one_vanishes_or_explodes_over_a_thousand_steps(x64):
    """1, 20959, 4.3e-5 and 0, of ``y = w^1000``, as a product of 1000 Jacobians."""
    product = lambda w: gradients.jacobian_product(jnp.full((1000, 1, 1), w))[0, 0]
    np.testing.assert_allclose(
        [product(1.0), product(1.01), product(0.99)], [1, 20959.16, 4.317e-5], rtol=1e-4
    )
    assert product(0.01) == 0


def recurrent(seed, scale):
    kernel, bias = np.random.default_rng(seed).normal(size=(4, 4)), np.array([0.1, -0.2, 0.3, 0.0])
    kernel = jnp.asarray(scale * kernel / np.linalg.norm(kernel, ord=2))
    return kernel, lambda h, x: jnp.tanh(kernel @ h + x + bias)


@pytest.mark.covers("G18", "G24")
def test_backpropagation_through_time_is_the_product_of_the_step_jacobians(x64):
    _, step = recurrent(0, 0.9)
    start, inputs = jnp.zeros(4), jax.random.normal(jax.random.key(1), (7, 4))
    states, jacobians = gradients.step_jacobians(step, start, inputs)

    def unrolled(h):
        for x in inputs:
            h = step(h, x)
        return h

    np.testing.assert_allclose(states[-1], jax.jit(unrolled)(start), rtol=1e-12)
    whole = gradients.jacobian_product(jacobians)
    np.testing.assert_allclose(whole, jax.jit(jax.jacobian(unrolled))(start), rtol=1e-10)
    reverse = jacobians[0]
    for jacobian in jacobians[1:]:
        reverse = reverse @ jacobian
    assert np.abs(reverse - whole).max() > 1e-4, "the order of the factors matters"
    assert np.linalg.norm(whole, 2) <= gradients.singular_value_bound(jacobians) <= 0.9**7


@pytest.mark.covers("G18", "G24")
def test_the_gradient_of_the_recurrent_weight_adds_over_all_times(x64):
    """The printed product follows only the first use of ``W``; the gradient is the sum over its uses."""
    inputs = jax.random.normal(jax.random.key(1), (5, 4))
    kernel, _ = recurrent(0, 0.9)

    def loss(kernels):
        h = jnp.zeros(4)
        for t in range(5):
            h = jnp.tanh(kernels[t] @ h + inputs[t])
        return jnp.sum(h**2)

    def scanned(kernel):
        return jnp.sum(
            jax.lax.scan(lambda h, x: (jnp.tanh(kernel @ h + x), None), jnp.zeros(4), inputs)[0] ** 2
        )

    per_time = jax.jit(jax.grad(loss))([kernel] * 5)
    np.testing.assert_allclose(jax.grad(scanned)(kernel), sum(per_time), rtol=1e-10)
    assert np.abs(np.asarray(per_time[1] - sum(per_time))).max() > 1e-2


@pytest.mark.covers("G18")
def test_a_singular_value_below_one_suffices_to_vanish_and_one_above_is_not_enough_to_explode(x64):
    times = 30
    powers = lambda w: jnp.broadcast_to(w, (times, *w.shape))
    kernel, _ = recurrent(2, 0.9)
    np.testing.assert_allclose(gradients.singular_value_bound(powers(kernel)), 0.9**times, rtol=1e-9)
    whole = gradients.jacobian_product(powers(kernel))
    np.testing.assert_allclose(
        whole, np.linalg.matrix_power(np.asarray(kernel), times), rtol=1e-9, atol=1e-15
    )
    assert np.linalg.norm(whole, 2) <= 0.9**times
    nilpotent = jnp.array([[0.0, 5.0], [0.0, 0.0]])
    assert gradients.singular_value_bound(powers(nilpotent)) > 1e20
    assert jnp.array_equal(gradients.jacobian_product(powers(nilpotent)), jnp.zeros((2, 2)))


@pytest.mark.covers("G20", "W28")
def test_a_residual_block_adds_the_identity_to_its_jacobian(x64):
    """``dE/dx_l = dE/dx_L (1 + d/dx_l sum F)``; twenty plain factors 0.5 leave 9.5e-7, residual ones do not."""
    kernels = 0.1 * jax.random.normal(jax.random.key(0), (6, 3, 3))
    body = lambda x, w: jnp.tanh(w @ x)
    start = jnp.array([0.2, -0.4, 0.6])
    states, inner = gradients.step_jacobians(body, start, kernels)
    states, outer = gradients.step_jacobians(lambda x, w: x + body(x, w), start, kernels)
    at = jnp.concatenate([start[None], states[:-1]])
    for x, w, whole in zip(at, kernels, outer, strict=True):
        np.testing.assert_allclose(whole, jnp.eye(3) + jax.jacobian(body)(x, w), rtol=1e-12)
    plain, residual = gradients.jacobian_product(inner), gradients.jacobian_product(outer)
    assert np.linalg.norm(plain) < 1e-2
    assert np.linalg.svd(np.asarray(residual), compute_uv=False).min() > 0.1
    halves = gradients.jacobian_product(jnp.full((20, 1, 1), 0.5))
    np.testing.assert_allclose(halves[0, 0], 9.5367e-7, rtol=1e-4)


@pytest.mark.covers("G21")
@pytest.mark.parametrize("shrink", [0.5, 0.9, 1.0])
def test_a_scaled_shortcut_decays_by_its_factor_in_each_layer(shrink, x64):
    """The shortcut alone: the slope of the log gradient over depth is ``log(lambda)``."""
    scaled = lambda x, _: shrink * x
    depths = jnp.arange(1, 21)
    sizes = []
    for depth in (5, 20):
        _, jacobians = gradients.step_jacobians(scaled, jnp.ones(1), depths[:depth])
        sizes.append(gradients.jacobian_product(jacobians)[0, 0])
    np.testing.assert_allclose(
        (np.log(sizes[1]) - np.log(sizes[0])) / 15, np.log(shrink), rtol=1e-12, atol=1e-15
    )


@pytest.mark.covers("G22")
def test_the_stochastic_gradient_is_right_on_average(x64):
    params = network()
    rng = np.random.default_rng(1)
    x, target = rng.normal(size=(9, 3)), rng.uniform(size=(9, 2))
    mean = lambda p: jnp.mean(jax.vmap(lambda a, b: cost(p, a, b))(x, target))
    full, each = (
        jax.jit(jax.grad(mean))(params),
        jax.jit(jax.vmap(jax.grad(cost), (None, 0, 0)))(params, x, target),
    )
    for f, e in zip(jax.tree.leaves(full), jax.tree.leaves(each), strict=True):
        np.testing.assert_allclose(jnp.mean(e, axis=0), f, rtol=1e-10, atol=1e-14)
        assert jnp.std(e, axis=0).max() > 1e-4


@pytest.mark.covers("G09")
def test_the_library_losses_pass_their_gradient_check():
    target = jnp.array([0.1, 0.7, 0.2])
    logits = jnp.array([0.3, -1.0, 2.0])
    measured = gradients.central_differences(lambda x: losses.softmax_cross_entropy(x, target), logits)
    np.testing.assert_allclose(measured, jax.nn.softmax(logits) - target, atol=1e-6)


@pytest.mark.covers("G23", "W19", "X61")
def test_minus_the_gradient_reads_as_directions_and_importances():
    """The printed vector [0.31, 0.03, -1.25, ..., 0.78, -0.37, 0.16] and the words beside it."""
    downhill = jnp.array([0.31, 0.03, -1.25, 0.78, -0.37, 0.16])
    nudges = {nudge.position[0]: nudge for nudge in gradients.sensitivity({"w": -downhill})}
    assert [(nudges[k].direction, nudges[k].strength) for k in range(6)] == [
        ("increase", "somewhat"), ("increase", "a little"), ("decrease", "a lot"),
        ("increase", "a lot"), ("decrease", "somewhat"), ("increase", "a little"),
    ]  # fmt: skip
    np.testing.assert_allclose([nudges[k].amount for k in range(6)], downhill)
    ranked = [nudge.position[0] for nudge in gradients.sensitivity({"w": -downhill})]
    assert ranked == [2, 3, 4, 0, 5, 1]


@pytest.mark.covers("G23", "W19")
def test_a_larger_component_has_the_larger_effect_and_a_small_step_follows_them_all():
    weights = jnp.array([2.25, -1.57, 1.98, -1.16, 3.82, 1.21])
    downhill = jnp.array([0.18, 0.45, -0.51, 0.40, -0.32, 0.82])
    fn = lambda w: -jnp.dot(downhill, w)
    grads = jax.grad(fn)(weights)
    np.testing.assert_allclose(grads, -downhill)
    effect = [abs(float(fn(weights.at[k].add(0.01)) - fn(weights))) for k in range(6)]
    by_effect = list(np.argsort(effect)[::-1])
    assert by_effect == [nudge.position[0] for nudge in gradients.sensitivity(grads)] == [5, 2, 1, 3, 4, 0]
    stepped = weights - 0.1 * grads
    np.testing.assert_allclose(stepped, [2.268, -1.525, 1.929, -1.12, 3.788, 1.292], rtol=1e-6)


def test_the_reading_names_paths_and_positions_and_puts_what_is_not_finite_first():
    grads = {
        "a": {"kernel": jnp.array([[0.0, 1.0], [jnp.nan, -4.0]])},
        "b": jnp.array(jnp.inf),
        "none": jnp.zeros(0),
    }
    nudges = gradients.sensitivity(grads, most=3)
    assert [(n.path, n.position, n.direction, n.strength) for n in nudges] == [
        ("a/kernel", (1, 0), "unknown", "unknown"),
        ("b", (), "decrease", "a lot"),
        ("a/kernel", (1, 1), "increase", "a lot"),
    ]
    last = gradients.sensitivity(grads)[-1]
    assert (last.position, last.direction, last.strength) == ((0, 0), "keep", "not at all")
    assert gradients.sensitivity({}) == []
