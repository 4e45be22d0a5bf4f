"""Networks that are written down do exactly what they are written to do."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from purenets import models, theory
from purenets.paths import flatten


def _run(layer, x, dtype=jnp.float64):
    params, state = layer.init(jax.random.key(0))
    return np.asarray(layer.apply(params, state, jnp.asarray(x, dtype))[0])


def _line(layer, x):
    return _run(layer, np.asarray(x)[:, None])[:, 0]


@pytest.mark.covers("M29")
@pytest.mark.parametrize("gain", [50, 100, 400])
def test_a_sigmoid_step_misses_the_step_by_the_printed_area(gain, x64):
    """At 0.5 on [0, 1]: 2 ln 2 / gain, 0.0139 at a gain of 100."""
    x = np.linspace(0, 1, 200_001)
    error = np.abs(_line(theory.sum_of_steps([0.5], [1.0], gain=gain), x) - (x >= 0.5))
    np.testing.assert_allclose(np.trapezoid(error, x), 2 * np.log(2) / gain, rtol=1e-3)
    if gain == 100:
        assert round(float(np.trapezoid(error, x)), 4) == 0.0139


@pytest.mark.covers("M29")
def test_a_bump_is_its_height_inside_and_nothing_outside_and_bumps_add_up(x64):
    f = theory.sum_of_bumps([(0.2, 0.4), (0.6, 0.7)], [2.0, -1.0], gain=2000)
    np.testing.assert_allclose(_line(f, [0.1, 0.3, 0.5, 0.65, 0.9]), [0, 2, 0, -1, 0], atol=1e-6)
    np.testing.assert_allclose(_line(theory.bump(0.2, 0.4, 3.0), [0.3, 0.6]), [3, 0], atol=1e-3)


@pytest.mark.covers("M20", "M29")
def test_a_staircase_of_sigmoids_comes_as_near_as_wanted(x64):
    x = np.linspace(0.02, 0.98, 5001)
    errors = [
        np.abs(_line(theory.staircase(np.sin, 0, 1, n, gain=2e4), x) - np.sin(x)).max() for n in (10, 40, 160)
    ]
    assert errors[0] > 3 * errors[1] > 9 * errors[2]
    assert errors[2] < 0.5 / 160 * 1.1


@pytest.mark.covers("M20")
def test_a_sum_of_sigmoids_is_the_printed_formula(x64):
    """``y = b + sum c sigmoid(b_i + w_i x)``; as w grows one unit becomes a step of height c at -b / w."""
    f = theory.sum_of_steps([0.25, 0.75], [2.0, -1.0], gain=8.0, level=0.5)
    x = np.linspace(-1, 2, 31)
    s = lambda z: 1 / (1 + np.exp(-z))
    np.testing.assert_allclose(_line(f, x), 0.5 + 2 * s(8 * x - 2) - s(8 * x - 6), rtol=1e-10)


@pytest.mark.covers("M30")
def test_a_curve_through_points_is_exact_at_and_between_them(x64):
    rng = np.random.default_rng(0)
    x, y = np.sort(rng.uniform(-3, 3, 12)), rng.normal(size=12)
    f = theory.piecewise_linear(x, y)
    everywhere = np.linspace(-4, 4, 1001)
    np.testing.assert_allclose(_line(f, everywhere), np.interp(everywhere, x, y), atol=1e-10)
    assert theory.count_pieces(lambda z: _line(f, z), -4, 4) == 13


@pytest.mark.covers("M30")
def test_a_hard_sigmoid_is_two_ramps(x64):
    f = theory.piecewise_linear([0.0, 1.0], [0.0, 1.0])
    z = np.linspace(-1, 2, 301)
    np.testing.assert_allclose(_line(f, z), np.maximum(z, 0) - np.maximum(z - 1, 0), atol=1e-12)


def _counted(bits, l):
    return sum(bits[:l])


@pytest.mark.covers("M31")
@pytest.mark.parametrize("length", range(1, 9))
def test_bits_are_counted_exactly_for_every_string_and_every_prefix(length):
    rows, wanted = [], []
    for bits in itertools.product((0, 1), repeat=length):
        for l in range(length + 1):
            rows.append((theory.binary_fraction(bits), l))
            wanted.append(_counted(bits, l))
    np.testing.assert_array_equal(_run(theory.bit_extraction(length), rows, jnp.float32)[:, 0], wanted)


@pytest.mark.covers("M31")
@pytest.mark.parametrize(("length", "dtype"), [(24, "float32"), (30, "float64"), (53, "float64")])
def test_long_strings_are_exact_up_to_what_the_dtype_holds(length, dtype, x64):
    rng = np.random.default_rng(0)
    strings = rng.integers(0, 2, (60, length))
    strings[0], strings[1] = 1, 0
    counts = rng.integers(0, length + 1, 60)
    rows = [(theory.binary_fraction(bits), l) for bits, l in zip(strings, counts, strict=True)]
    found = _run(theory.bit_extraction(length, jnp.dtype(dtype)), rows, jnp.dtype(dtype))[:, 0]
    np.testing.assert_array_equal(found, [_counted(b, l) for b, l in zip(strings, counts, strict=True)])


@pytest.mark.covers("M31")
@pytest.mark.parametrize("length", [1, 5])
def test_the_network_has_the_width_and_depth_of_the_lemma(length):
    params, _ = theory.bit_extraction(length).init(jax.random.key(0))
    kernels = {p: leaf.shape for p, leaf in flatten(params).items() if p.endswith("kernel")}
    hidden = [shape[1] for path, shape in kernels.items() if "out" not in path]
    assert len(hidden) == 2 * length
    assert max(hidden) == 7
    assert kernels["network/layer_1/kernel"] == (2, 7)
    assert kernels["network/out/kernel"] == (4, 1)


@pytest.mark.covers("M33", "W32")
@pytest.mark.parametrize(
    ("d", "n", "length", "uniform", "width", "depth", "error"),
    [
        (1, 4, 4, False, 60, 62, 0.0742),
        (2, 4, 4, False, 60, 62, 1.679),
        (1, 4, 4, True, 405, 64, 0.0742),
        (2, 4, 4, True, 1215, 66, 1.679),
    ],
)
def test_the_approximation_theorem_has_the_printed_numbers(d, n, length, uniform, width, depth, error):
    found = theory.relu_bound(d, n, length, uniform=uniform)
    assert (found.width, found.depth) == (width, depth)
    assert found.error == pytest.approx(error, rel=1e-3)


@pytest.mark.covers("M33")
def test_the_root_in_the_theorem_is_the_integer_one():
    """27^(1/3) is 3 and not 2, whatever floating point says."""
    assert theory.relu_bound(3, 27, 1).width == 12 * 28
    assert theory.relu_bound(3, 1000, 1).width == 12 * max(3 * 10, 1001)
    assert theory.relu_bound(5, 32, 1).width == 12 * 33


@pytest.mark.covers("W25")
def test_a_table_needs_a_power_of_the_cells():
    assert [theory.partitions(0.1, d) for d in (1, 2, 3)] == [10, 100, 1000]


@pytest.mark.covers("M34")
@pytest.mark.parametrize("depth", [1, 2, 4, 8])
def test_fat_and_thin_networks_come_to_one_budget(depth):
    width = theory.hidden_width(30, 5, depth, 20_000)
    sizes = (30, *[width] * depth, 5)
    model = models.mlp(sizes)
    count = sum(leaf.size for leaf in jax.tree.leaves(jax.eval_shape(model.init, jax.random.key(0))[0]))
    assert count == theory.count_parameters(sizes)
    assert abs(count - 20_000) < 0.02 * 20_000


@pytest.mark.covers("M24", "W10")
def test_parameters_are_counted_as_printed():
    parts = [theory.count_parameters(pair) for pair in itertools.pairwise((784, 16, 16, 10))]
    assert parts == [12_560, 272, 170]
    assert theory.count_parameters((784, 16, 16, 10)) == 13_002


@pytest.mark.covers("M22", "W11")
def test_the_form_that_absorbs_the_bias_is_the_same_network_both_ways():
    model = models.mlp((3, 3, 1), activation=jax.nn.sigmoid, output=jax.nn.sigmoid)
    params, _ = model.init(jax.random.key(0))
    params = jax.tree.map(lambda leaf: leaf + 0.1, params)
    thetas = theory.to_theta(params)
    assert [theta.shape for theta in thetas] == [(3, 4), (1, 4)]
    x = jax.random.normal(jax.random.key(1), (5, 3))
    ours = model.apply(params, {}, x)[0]
    np.testing.assert_allclose(theory.apply_theta(thetas, x, [jax.nn.sigmoid] * 2), ours, rtol=1e-6)
    back = theory.from_theta(thetas)
    jax.tree.map(np.testing.assert_array_equal, back, params)


@pytest.mark.covers("M21", "M23")
def test_layers_with_activations_of_their_own_follow_the_recursion(x64):
    """``a^l = s(W^l a^(l-1) + b^l)`` with ``W^l`` as ``[N_l, N_(l-1)]``, the transpose of a kernel."""
    model = models.mlp((4, 6, 5, 3), activation=(jnp.tanh, jax.nn.relu), output=jax.nn.softmax)
    params, _ = model.init(jax.random.key(0))
    a = x = np.asarray(jax.random.normal(jax.random.key(1), (4,)), np.float64)
    for i, s in enumerate((np.tanh, lambda z: np.maximum(z, 0), lambda z: np.exp(z) / np.exp(z).sum()), 1):
        w, b = np.asarray(params[f"dense_{i}"]["kernel"]).T, np.asarray(params[f"dense_{i}"]["bias"])
        assert w.shape == ((4, 6, 5, 3)[i], (4, 6, 5, 3)[i - 1])
        a = s(w @ a + b)
    np.testing.assert_allclose(model.apply(params, {}, jnp.asarray(x)[None])[0][0], a, rtol=1e-5)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: theory.bit_extraction(25), "needs 1 to 24 bits in float32, got 25"),
        (lambda: theory.bit_extraction(0), "needs 1 to 24 bits"),
        (lambda: theory.binary_fraction([0, 2]), "up to 53 bits of 0 or 1"),
        (lambda: theory.piecewise_linear([0, 0], [1, 2]), "in ascending order"),
        (lambda: theory.piecewise_linear([0, 1], [1]), "as many places as values, got 2 and 1"),
        (lambda: theory.relu_bound(0, 1, 1), "needs positive d, N and L"),
        (lambda: theory.hidden_width(30, 5, 4, 10), "more than 10"),
        (lambda: theory.from_theta([np.ones((3, 4)), np.ones((1, 3))]), r"needs 3 \+ 1 columns here"),
        (
            lambda: theory.to_theta({"dense_1": {"kernel": np.ones((2, 2))}}),
            "needs dense_1 with kernel and bias",
        ),
    ],
    ids=["too many bits", "no bits", "no bit", "order", "lengths", "sizes", "budget", "columns", "no bias"],
)
def test_what_cannot_be_written_down_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_the_limit_of_float32_comes_with_the_way_beyond_it():
    with pytest.raises(ValueError) as caught:
        theory.bit_extraction(25)
    assert "float64 holds 53" in caught.value.__notes__[0]
