"""``check_loss`` and ``check_step``: the laws of a loss and of a training step."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from purenets.conform.case import fill
from purenets.conform.derivatives import gradients_agree
from purenets.conform.protocol import same_form
from purenets.conform.report import Fail, NonConformance, Question, Report, Skip, ask
from purenets.conform.runs import fast_jit
from purenets.conform.subject import name_of
from purenets.conform.transforms import agree
from purenets.paths import path_of

__all__ = ["check_loss", "check_step"]


def check_loss(
    loss: Callable[..., Any],
    *examples: Any,
    reference: Callable[..., Any] | None = None,
    smooth: bool = True,
    raises: bool = True,
) -> Report:
    """Hold a loss to its laws: per example, unreduced, finite, differentiable.

    Args:
        loss: ``loss(predictions, ...) -> [batch, ...]``, one number or more for each example.
        examples: its arguments, arrays or shapes, all with the batch as first axis and at least two examples.
        reference: a function of the same arguments that gives the right numbers, in NumPy or JAX.
        smooth: whether to measure the gradient with respect to the predictions.
        raises: raise on failure; otherwise the report says it.

    Raises:
        NonConformance: a law is broken.

    >>> check_loss(lambda p, t: (p - t) ** 2, (3,), (3,)).ok
    True
    """
    args = tuple(fill(x, i) for i, x in enumerate(examples))
    rows = tuple(
        ask("law", name, question) for name, question in _loss_questions(loss, args, reference, smooth)
    )
    return _reported(Report(name_of(loss), name_of(reference) if reference else None, rows), raises)


def _reported(report: Report, raises: bool) -> Report:
    if raises and not report.ok:
        raise NonConformance(report)
    return report


def _loss_questions(
    loss: Callable[..., Any], args: tuple[Any, ...], reference: Callable[..., Any] | None, smooth: bool
) -> Iterator[tuple[str, Question]]:
    batch = jnp.shape(args[0])[0]
    at = lambda index: jax.tree.map(lambda x: jnp.asarray(x)[index], args)

    def per_example() -> str:
        out = jax.eval_shape(loss, *args)
        if not out.shape or out.shape[0] != batch:
            raise Fail(
                f"of {batch} examples the losses have shape {out.shape}: leave the reduction to the caller"
            )
        if not jnp.issubdtype(out.dtype, jnp.floating):
            raise Fail(f"the losses are {out.dtype}")
        return f"{out.dtype}{list(out.shape)}"

    def finite() -> None:
        if not np.isfinite(np.asarray(loss(*args))).all():
            raise Fail("not finite on ordinary numbers")

    def alone() -> None:
        for i in range(min(batch, 3)):
            agree(f"example {i} alone", loss(*at(slice(i, i + 1)))[0], loss(*args)[i], 1e-5)

    def order() -> None:
        turned = np.arange(batch)[::-1].copy()
        agree("examples in another order", loss(*at(turned)), loss(*args)[turned], 1e-5)

    def compiled() -> None:
        agree("compiled", jax.jit(loss)(*args), loss(*args), 1e-5)

    def vmapped() -> None:
        each = fast_jit(jax.vmap(lambda *one: loss(*jax.tree.map(lambda x: x[None], one))[0]))
        agree("one by one under vmap", each(*jax.tree.map(jnp.asarray, args)), loss(*args), 1e-5)

    def large() -> None:
        if not jnp.issubdtype(jnp.result_type(args[0]), jnp.floating):
            raise Skip("predictions are no floats")
        for scale in (1e-4, 1e2, 1e4):
            value, slope = jax.value_and_grad(lambda p, s=scale: jnp.sum(loss(s * p, *args[1:])))(args[0])
            if not (np.isfinite(value) and np.isfinite(np.asarray(slope)).all()):
                raise Fail(
                    f"predictions times {scale:g}: the loss is {float(value)} and its gradient not finite"
                )

    def reduced_precision() -> str:
        if jnp.result_type(args[0]) != jnp.float32:
            raise Skip("predictions are not float32")
        half = args[0].astype(jnp.bfloat16)
        out, exact = loss(half, *args[1:]), loss(half.astype(jnp.float32), *args[1:])
        agree("of bfloat16 predictions", out.astype(jnp.float32), exact, 3e-2)
        return str(out.dtype)

    def gradient() -> str:
        return gradients_agree(lambda p: loss(p, *_wide(args[1:])), args[0])

    def equal() -> None:
        if reference is None:
            raise Skip("no reference")
        with jax.enable_x64(True):
            wide = _wide(args)
            agree("against the reference", loss(*wide), jnp.asarray(reference(*wide)), 1e-9)

    yield "a loss for each example", per_example
    yield "finite", finite
    yield "each example alone", alone
    yield "order of the examples", order
    yield "eager = jit", compiled
    yield "batch = vmap", vmapped
    yield "large and small predictions", large
    yield "bfloat16 predictions", reduced_precision
    if smooth:
        yield "gradient", gradient
    yield "reference", equal


def _wide(tree: Any) -> Any:
    wide = lambda x: np.asarray(x, np.float64) if jnp.issubdtype(jnp.result_type(x), jnp.floating) else x
    return jax.tree.map(lambda x: jnp.asarray(wide(x)), tree)


def check_step(step: Callable[[Any, Any], Any], ts: Any, batch: Any, raises: bool = True) -> Report:
    """Hold a training step to its laws: a pure function, and a legal ``lax.scan`` body.

    Args:
        step: ``step(train_state, batch) -> (train_state, metrics)``; a train state is any pytree.
        ts: a train state to start from.
        batch: a batch, given at every step.
        raises: raise on failure; otherwise the report says it.

    Raises:
        NonConformance: a law is broken.

    >>> import jax.numpy as jnp
    >>> check_step(lambda w, x: (w - 0.1 * (w - x), {"loss": (w - x) ** 2}), jnp.ones(()), jnp.zeros(())).ok
    True
    """
    rows = tuple(ask("law", name, question) for name, question in _step_questions(step, ts, batch))
    return _reported(Report(name_of(step), None, rows), raises)


def _fresh(tree: Any) -> Any:
    """A copy with its own buffers and its own keys."""
    is_key = lambda x: jnp.issubdtype(getattr(x, "dtype", jnp.float32), jax.dtypes.prng_key)
    return jax.tree.map(lambda x: jax.random.clone(x) if is_key(x) else jnp.array(x), tree)


def _step_questions(step: Callable[[Any, Any], Any], ts: Any, batch: Any) -> Iterator[tuple[str, Question]]:
    def loop(times: int, run: Callable[[Any, Any], Any]) -> tuple[Any, list[Any]]:
        state, told = _fresh(ts), []
        for _ in range(times):
            state, metrics = run(state, batch)
            told.append(metrics)
        return state, told

    def form() -> None:
        for path, leaf in jax.tree_util.tree_flatten_with_path(ts)[0]:
            if isinstance(leaf, (bool, int, float, complex)):
                where = path_of(path) or "its only leaf"
                raise Fail(
                    f"the train state has the Python number {leaf!r} at {where}: make it an array with a dtype"
                )
        out = jax.eval_shape(step, ts, batch)
        if not isinstance(out, tuple) or len(out) != 2:
            raise Fail(f"a step must return (train state, metrics), got {type(out).__name__}")
        same_form("the train state after a step", jax.eval_shape(lambda x: x, ts), out[0])

    def compiled() -> None:
        agree("compiled", loop(2, jax.jit(step)), loop(2, step), 1e-3)

    def one_trace() -> None:
        traces = []

        def counted(state: Any, batch: Any) -> Any:
            traces.append(0)
            return step(state, batch)

        loop(3, jax.jit(counted, donate_argnums=0))
        if len(traces) != 1:
            raise Fail(f"three steps were traced {len(traces)} times: what goes in is not what comes out")

    def scanned() -> None:
        run = fast_jit(lambda state: jax.lax.scan(lambda s, _: step(s, batch), state, length=3))
        state, told = run(_fresh(ts))
        expected, metrics = loop(3, jax.jit(step))
        agree("scanned", state, expected, 1e-3)
        agree("the metrics of the scan", jax.tree.map(lambda x: x[2], told), metrics[2], 1e-3)

    def repeatable() -> None:
        run = jax.jit(step)
        agree("the same steps again", loop(2, run), loop(2, run), 0.0)

    def finite() -> None:
        state, told = loop(3, jax.jit(step))
        for path, x in jax.tree_util.tree_flatten_with_path((state, told))[0]:
            number = jnp.issubdtype(jnp.result_type(x), jnp.floating)
            if number and not np.isfinite(np.asarray(x, np.float64)).all():
                raise Fail(f"not finite after three steps: {jax.tree_util.keystr(path)}")

    def keys_move_on() -> None:
        with jax.debug_key_reuse(True):
            try:
                loop(2, step)
            except jax.errors.KeyReuseError:
                raise Fail(
                    "a key is used up in one step and again in the next: split it, or fold in a count"
                ) from None

    def left_alone() -> None:
        plain = lambda tree: [np.array(x) for x in jax.tree.leaves(tree) if _is_plain(x)]
        before = plain((ts, batch))
        step(ts, batch)
        for old, new in zip(before, plain((ts, batch)), strict=True):
            if not np.array_equal(old, new, equal_nan=old.dtype.kind == "f"):
                raise Fail("the step changed the numbers it was given")

    yield "state in = state out", form
    yield "eager = jit", compiled
    yield "one trace, donated", one_trace
    yield "loop = scan", scanned
    yield "the same twice", repeatable
    yield "finite", finite
    yield "inputs are left alone", left_alone
    yield "keys are used once", keys_move_on


def _is_plain(x: Any) -> bool:
    return not jnp.issubdtype(getattr(x, "dtype", jnp.float32), jax.dtypes.prng_key)
