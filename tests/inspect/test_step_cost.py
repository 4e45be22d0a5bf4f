"""The report of time and memory: bytes are those of the arrays, seconds those that passed."""

import time

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import purenets as pn
from purenets import models
from purenets.inspect.step_cost import step_cost

N_IN, HIDDEN, N_OUT, BATCH = 64, 256, 8, 32


def squared(out, y):
    return jnp.sum((out - y) ** 2, -1)


def problem(loss=squared, model=None):
    model = model or models.mlp((N_IN, HIDDEN, N_OUT))
    step = pn.make_step(pn.supervised(model, loss), optax.sgd(1e-3, momentum=0.9))
    ts = pn.start(model, step.optimizer, jax.random.key(0))
    return step, ts, (jnp.ones((BATCH, N_IN)), jnp.ones((BATCH, N_OUT)))


def test_bytes_are_those_of_the_arrays():
    step, ts, batch = problem()
    found = step_cost(step, ts, batch, steps=2, rounds=1)
    params = 4 * (N_IN * HIDDEN + HIDDEN + HIDDEN * N_OUT + N_OUT)
    examples = 4 * BATCH * (N_IN + N_OUT)
    assert found.held == {"params": params, "model state": 0, "optimizer state": params, "batch": examples}
    # The step and the key beside them: 4 and 8 bytes.
    assert found.argument_bytes == pytest.approx(2 * params + examples + 12, abs=256)
    # All but the metrics take the place of an argument, since the TrainState is donated.
    assert found.output_bytes < 256
    # At least the hidden layer's activations are kept for the backward pass.
    assert 4 * BATCH * HIDDEN <= found.temporary_bytes < 40 * BATCH * HIDDEN
    assert found.peak_bytes == found.argument_bytes + found.output_bytes + found.temporary_bytes


def test_operations_are_those_of_five_products():
    step, ts, batch = problem()
    found = step_cost(step, ts, batch, steps=1, rounds=1)
    # Forwards two, backwards two for the kernels and one for the hidden layer.
    products = 2 * BATCH * HIDDEN * (2 * N_IN + 3 * N_OUT)
    assert products < found.flops < 1.2 * products
    assert found.flops_per_second == found.flops / found.step_seconds


def test_seconds_are_those_of_the_step_and_of_its_trace():
    def slow(out, y):
        time.sleep(0.05)

        def wait(x):
            time.sleep(0.01)
            return x

        loss = squared(out, y)
        shape = jax.ShapeDtypeStruct(loss.shape, loss.dtype)
        return loss + 0 * jax.pure_callback(wait, shape, jax.lax.stop_gradient(loss))

    found = step_cost(*problem(slow, pn.dense(N_IN, N_OUT)), steps=3, rounds=1)
    assert found.trace_seconds >= 0.05
    assert 0.01 <= found.step_seconds < 1


def test_the_state_that_was_given_stays():
    step, ts, batch = problem()
    kernel = np.asarray(ts.params["dense_1"]["kernel"]).copy()
    step_cost(step, ts, batch, steps=2, rounds=1)
    np.testing.assert_array_equal(ts.params["dense_1"]["kernel"], kernel)


def test_the_table_names_every_cost():
    text = str(step_cost(*problem(), steps=1, rounds=1))
    lines = {line.split("  ")[0].strip(): line.split("  ")[-1].strip() for line in text.splitlines()[2:]}
    assert lines["params"] == f"{4 * (N_IN * HIDDEN + HIDDEN + HIDDEN * N_OUT + N_OUT):,} bytes"
    assert {"trace", "compile", "step", "temporaries", "peak", "operations per second"} <= lines.keys()


def test_no_steps_at_all_make_no_sense():
    with pytest.raises(ValueError, match="at least 1 step and 1 round, got 0 and 3"):
        step_cost(*problem(), steps=0)
