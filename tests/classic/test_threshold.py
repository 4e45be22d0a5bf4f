"""Threshold units and gates: the printed tables, and every truth table."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from purenets.classic.threshold import (
    GATES,
    compile_truth_table,
    logistic_gate,
    threshold_layer,
    truth_table,
    xnor,
)
from purenets.paths import flatten

PAIRS = jnp.asarray(truth_table(2))


def _out(model, x):
    params, state = model.init(jax.random.key(0))
    return np.asarray(model.apply(params, state, x)[0])


@pytest.mark.covers("M01")
@pytest.mark.parametrize(("threshold", "expected"), [(2, [0, 0, 0, 1]), (1, [0, 1, 1, 1])], ids=["and", "or"])
def test_a_unit_of_weights_one_is_a_gate_by_its_threshold(threshold, expected):
    unit = threshold_layer(np.ones((2, 1)), [threshold])
    assert _out(unit, PAIRS).ravel().tolist() == expected


@pytest.mark.covers("M02")
def test_a_sum_of_exactly_the_threshold_fires():
    unit = threshold_layer([[1.0]], [0.5])
    assert _out(unit, jnp.array([[0.5], [0.4999], [-0.5]])).ravel().tolist() == [1, 0, 0]


@pytest.mark.covers("M06", "W08")
@pytest.mark.parametrize(
    ("name", "sums", "table"),
    [
        ("and", [-30, -10, -10, 10], [0, 0, 0, 1]),
        ("or", [-10, 10, 10, 30], [0, 1, 1, 1]),
        ("nor", [10, -10, -10, -30], [1, 0, 0, 0]),
        ("not", [10, -10], [1, 0]),
    ],
)
def test_logistic_gates_have_the_printed_sums_and_values(name, sums, table):
    x = jnp.asarray(truth_table(len(GATES[name]) - 1))
    gate = logistic_gate(name)
    params, _ = gate.init(jax.random.key(0))
    assert (x @ params["kernel"] + params["bias"]).ravel().tolist() == sums
    found = _out(gate, x).ravel()
    np.testing.assert_allclose(found, 1 / (1 + np.exp(-np.array(sums, float))), rtol=1e-5)
    assert np.abs(found - table).max() < 5e-5


@pytest.mark.covers("M06")
def test_the_printed_values_of_the_sigmoid(x64):
    found = jax.nn.sigmoid(jnp.array([-30.0, -10.0, 10.0]))
    np.testing.assert_allclose(found, [9.36e-14, 4.54e-5, 0.9999546], rtol=1e-3)
    assert jax.nn.sigmoid(jnp.float32(30)) == 1


@pytest.mark.covers("M07", "W09")
def test_two_gates_and_a_third_compute_equality_with_the_printed_values():
    model = xnor()
    np.testing.assert_allclose(
        _out(model, PAIRS).ravel(), [0.99995456, 4.548e-5, 4.548e-5, 0.99995456], rtol=2e-4
    )
    hidden = [
        _out(logistic_gate(name), PAIRS).ravel().round().astype(int).tolist() for name in ("and", "nor")
    ]
    assert hidden == [[0, 0, 0, 1], [1, 0, 0, 0]]


@pytest.mark.covers("M09")
@pytest.mark.parametrize("n", [1, 2, 3])
def test_every_truth_table_compiles_to_a_network_that_gives_it_exactly(n):
    rows = jnp.asarray(truth_table(n))
    for outputs in itertools.product((0, 1), repeat=2**n):
        assert _out(compile_truth_table(outputs), rows).ravel().tolist() == list(outputs)


@pytest.mark.covers("M09")
def test_parity_of_eight_bits_takes_a_unit_for_each_true_row():
    parity = truth_table(8).sum(1).astype(int) % 2
    model = compile_truth_table(parity)
    np.testing.assert_array_equal(_out(model, jnp.asarray(truth_table(8))).ravel(), parity)
    shapes = flatten(
        jax.tree.map(jnp.shape, model.init(jax.random.key(0))[0], is_leaf=lambda x: hasattr(x, "shape"))
    )
    assert shapes["rows/kernel"] == (8, 128)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: compile_truth_table([0, 1, 1]), "has 2\\^n outputs"),
        (lambda: compile_truth_table([0, 2]), "are 0 or 1, got"),
        (lambda: logistic_gate("nand"), "the gates are and, or, nor, not, got 'nand'"),
        (lambda: threshold_layer(np.ones((2, 1)), [1, 2]), "needs weights"),
    ],
    ids=["length", "values", "gate", "thresholds"],
)
def test_bad_tables_and_gates_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
