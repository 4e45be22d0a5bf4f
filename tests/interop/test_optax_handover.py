"""A run begun with optax goes on with ours, and the other way round, from the state as it is: no conversion."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from purenets import optim
from tests.layers.peers import normal

STEPS = 24


def _build(lib, name):
    """The same optimizer of either library."""
    return {
        "adam": lambda: lib.adam(1e-2),
        "adamw with a schedule": lambda: lib.adamw(
            lib.warmup_cosine_decay_schedule(0.0, 1e-2, 4, STEPS), weight_decay=0.1
        ),
        "sgd with momentum": lambda: lib.sgd(1e-2, momentum=0.9, nesterov=True),
        "a chain": lambda: lib.chain(
            lib.clip_by_global_norm(1.0), lib.scale_by_adam(), lib.add_decayed_weights(1e-2), lib.scale(-1e-2)
        ),
    }[name]()


NAMES = ["adam", "adamw with a schedule", "sgd with momentum", "a chain"]


def loss(params, x):
    """Of a small net whose gradients change from step to step."""
    return jnp.mean((jnp.tanh(x @ params["w"]) @ params["out"] - jnp.sin(x.sum(-1, keepdims=True))) ** 2)


def _steps(optimizer):
    @jax.jit
    def run(carry, xs):
        def step(carry, x):
            params, state = carry
            updates, state = optimizer.update(jax.grad(loss)(params, x), state, params)
            params = optax.apply_updates(params, updates)
            return (params, state), params

        return jax.lax.scan(step, carry, xs)

    return run


@pytest.mark.parametrize("name", NAMES)
def test_the_trajectory_goes_on_as_if_there_had_been_no_change(name, x64):
    xs = normal(STEPS, 5, 3, dtype=jnp.float64)
    params = {"w": normal(3, 4, seed=1, dtype=jnp.float64), "out": normal(4, 1, seed=2, dtype=jnp.float64)}
    ours, theirs = _build(optim, name), _build(optax, name)
    _, whole = _steps(theirs)((params, theirs.init(params)), xs)
    cut = STEPS // 3
    for first, then in ((ours, theirs), (theirs, ours)):
        carry, before = _steps(first)((params, first.init(params)), xs[:cut])
        _, after = _steps(then)(carry, xs[cut:])
        for leaf in params:
            found = np.concatenate([before[leaf], after[leaf]])
            np.testing.assert_allclose(found, whole[leaf], rtol=1e-12, atol=1e-14)
    assert np.abs(whole["w"][-1] - params["w"]).max() > 1e-3


@pytest.mark.parametrize("name", NAMES)
def test_states_are_of_the_same_types_entry_for_entry(name):
    params = {"w": jnp.ones((3, 4))}
    ours, theirs = _build(optim, name).init(params), _build(optax, name).init(params)
    assert jax.tree.structure(ours) == jax.tree.structure(theirs)
    jax.tree.map(lambda a, b: np.testing.assert_array_equal(a, b, strict=True), ours, theirs)
    flat = lambda s: jax.tree.leaves(s, is_leaf=lambda n: isinstance(n, tuple) and hasattr(n, "_fields"))
    assert list(map(type, flat(ours))) == list(map(type, flat(theirs)))
