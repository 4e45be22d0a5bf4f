"""The network of lemma 3.6 knows every bit of a table, at the width and depth of the lemma."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import purenets as pn
from purenets import theory
from purenets.paths import flatten


def every_query(bits):
    m, l = np.meshgrid(*map(np.arange, bits.shape), indexing="ij")
    return np.stack([m.ravel(), l.ravel()], -1), np.cumsum(bits, 1).ravel()


@pytest.mark.covers("M32")
@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize(("n", "length"), [(1, 1), (1, 4), (2, 1), (2, 3), (3, 2), (4, 5), (5, 3)])
def test_all_prefix_sums_of_random_bits_are_exact_in_float64(n, length, seed, x64):
    bits = np.random.default_rng(seed).integers(0, 2, (n * n * length, length))
    net = theory.memorising_network(bits, n, jnp.float64)
    queries, wanted = every_query(bits)
    found = jax.jit(net.apply)(*net.init(jax.random.key(0)), jnp.asarray(queries, jnp.float64))[0]
    np.testing.assert_array_equal(found[:, 0], wanted)


@pytest.mark.covers("M32")
@pytest.mark.parametrize("bits", [np.zeros((12, 3), int), np.ones((12, 3), int), np.eye(12, 3, dtype=int)])
def test_all_prefix_sums_are_exact_in_float32(bits):
    net = theory.memorising_network(bits, 2)
    queries, wanted = every_query(bits)
    found = net.apply(*net.init(jax.random.key(0)), jnp.asarray(queries, jnp.float32))[0]
    np.testing.assert_array_equal(found[:, 0], wanted)


@pytest.mark.covers("M32")
@pytest.mark.parametrize(("n", "length", "width", "depth"), [(2, 3, 11, 12), (1, 2, 7, 9), (4, 5, 19, 18)])
def test_the_network_has_the_width_and_depth_of_the_lemma(n, length, width, depth):
    net = theory.memorising_network(np.zeros((n * n * length, length)), n, jnp.float32)
    # What goes into a ReLU is a hidden layer.
    tapped = pn.edit(net, ("**/relu_*", "count"), pn.tap)
    _, state = jax.eval_shape(tapped.apply, *net.init(jax.random.key(0)), jnp.zeros((1, 2)))
    units = [output.shape[-1] for output in pn.taps(state).values()]
    assert len(units) == depth
    assert max(units) == width


def test_what_the_network_knows_is_in_its_params():
    bits = np.random.default_rng(0).integers(0, 2, (12, 3))
    net = theory.memorising_network(bits, 2)
    params, state = net.init(jax.random.key(0))
    assert set(flatten(params)) >= {"fit/layer_1/kernel", "bits/network/layer_1/kernel", "out/kernel"}
    # Another bias and it knows something else: the table is in the params, not in the program.
    params["fit"]["layer_1"]["bias"] = params["fit"]["layer_1"]["bias"] + 1.0
    queries, wanted = every_query(bits)
    found = net.apply(params, state, jnp.asarray(queries, jnp.float32))[0][:, 0]
    assert not np.array_equal(found, wanted)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: theory.memorising_network(np.zeros((11, 3)), 2),
            r"bits \[n\^2 L, L\], for n = 2 and L = 3 \[12, 3\]",
        ),
        (lambda: theory.memorising_network(np.zeros(3), 1), r"got \[3\]"),
        (lambda: theory.memorising_network(np.full((1, 1), 2), 1), "bits of 0 or 1"),
        (
            lambda: theory.memorising_network(np.zeros((64, 16)), 2),
            "needs 31 binary digits and float32 has 24",
        ),
    ],
    ids=["rows", "rank", "not a bit", "precision"],
)
def test_tables_that_do_not_fit_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_queries_of_another_shape_are_refused():
    net = theory.memorising_network(np.zeros((1, 1)), 1)
    with pytest.raises(ValueError, match=r"needs \[batch, 2\] of float32"):
        net.apply(*net.init(jax.random.key(0)), jnp.zeros((1, 3)))
