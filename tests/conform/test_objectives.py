"""Losses, steps and gradients held to their laws."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from purenets.conform import NonConformance, check_gradients, check_loss, check_step


def cross_entropy(logits, labels):
    logits = logits.astype(jnp.promote_types(logits.dtype, jnp.float32))
    return -jnp.take_along_axis(jax.nn.log_softmax(logits), labels[:, None], 1)[:, 0]


LABELS = jnp.array([0, 2, 1])


def in_numpy(logits, labels):
    x = np.asarray(logits, np.float64)
    return np.log(np.exp(x).sum(1)) - x[np.arange(3), np.asarray(labels)]


def test_a_good_loss_passes_and_equals_its_reference():
    report = check_loss(cross_entropy, (3, 4), LABELS, reference=in_numpy)
    assert all(row.status == "pass" for row in report.rows)


@pytest.mark.parametrize(
    ("loss", "check"),
    [
        (lambda x, y: jnp.mean(cross_entropy(x, y)), "a loss for each example"),
        (lambda x, y: cross_entropy(x - jnp.mean(x), y) + jnp.mean(x), "each example alone"),
        (lambda x, y: cross_entropy(x, y) * (1 + jnp.arange(3)), "order of the examples"),
        (lambda x, y: jnp.log(jnp.exp(x).sum(1)) - jnp.take_along_axis(x, y[:, None], 1)[:, 0],
         "large and small predictions"),
        (lambda x, y: 2 * cross_entropy(x, y), "reference"),
    ],
    ids=["reduced", "mixes", "by position", "overflows", "doubled"],
)  # fmt: skip
def test_a_loss_that_breaks_a_law_is_found(loss, check):
    report = check_loss(loss, (3, 4), LABELS, reference=in_numpy, raises=False)
    assert check in {row.check for row in report.failures}


def step(state, batch):
    loss, grad = jax.value_and_grad(lambda w: jnp.mean((batch @ w) ** 2))(state["w"])
    return {"w": state["w"] - 0.1 * grad, "n": state["n"] + 1}, {"loss": loss}


START = {"w": jnp.ones(3), "n": jnp.zeros((), jnp.int32)}
BATCH = jnp.eye(3)


def test_a_pure_step_is_a_scan_body():
    assert check_step(step, START, BATCH).ok


@pytest.mark.parametrize(
    ("start", "wrong", "check"),
    [
        (START, lambda s, b: (step(s, b)[0], {"loss": jnp.log(-jnp.ones(()))}), "finite"),
        (START, lambda s, b: ({**step(s, b)[0], "w": jnp.ones(2)}, {}), "state in = state out"),
        ({**START, "n": 0}, lambda s, b: ({**step(s, b)[0], "n": s["n"] + 1}, {}), "state in = state out"),
    ],
    ids=["nan", "shape", "python number"],
)
def test_a_step_that_breaks_a_law_is_found(start, wrong, check):
    assert check in {row.check for row in check_step(wrong, start, BATCH, raises=False).failures}


def test_a_python_number_in_the_state_is_named():
    with pytest.raises(
        NonConformance, match=r"has the Python number 0\.5 at rate: make it an array with a dtype"
    ):
        check_step(lambda s, b: (s, {}), {**START, "rate": 0.5}, BATCH)


def test_a_step_that_remembers_outside_of_its_state_is_found():
    calls = []

    def impure(state, batch):
        calls.append(0)
        return {**state, "w": state["w"] * len(calls)}, {}

    assert "eager = jit" in {row.check for row in check_step(impure, START, BATCH, raises=False).failures}


@pytest.mark.covers("G09")
def test_right_gradients_pass_over_every_float_of_the_arguments():
    fn = lambda p, n, x: jnp.tanh(p["w"] @ x + p["b"]) ** n
    report = check_gradients(fn, {"w": jnp.ones((2, 3)), "b": 0.3}, 2, np.array([0.1, -0.2, 0.3]))
    assert report.rows[0].detail == "10 numbers"


@pytest.mark.covers("G09")
@pytest.mark.parametrize("factor", [0.5, 1.001, -1.0])
def test_a_wrong_gradient_is_found_by_central_differences(factor):
    @jax.custom_jvp
    def wrong(x):
        return jnp.sin(x)

    wrong.defjvps(lambda t, ans, x: factor * jnp.cos(x) * t)
    with pytest.raises(NonConformance, match=r"argument 0\[0\]: the gradient is"):
        check_gradients(wrong, jnp.array([0.3, 0.7]))
