"""Laws that need no reference: each holds for gradient descent and finds the optimizer that breaks it."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from purenets.conform import surroundings
from purenets.conform.regular import REGULAR
from purenets.conform.report import Fail, Skip
from purenets.conform.subject import Subject
from purenets.conform.traits import Measured
from tests.conform.broken import sgd


def law(name, factory):
    return REGULAR[name][1](Measured(Subject(factory)))


def rule(slow):
    """Descent that is wrong by a factor where it is told."""
    return sgd(rule=lambda g, v, rate: (-rate * g * slow(g), v))


def late(u, s):
    return jax.tree.map(lambda x: jnp.where(s.count == 1200, 0.9 * x, x), u), s


BROKEN = [
    ("own_leaf", sgd(after=lambda u, s: ({**u, "gain": -jax.tree.leaves(u)[0].sum()} if "gain" in u else u, s)),
     "quite another gradient of gain alone"),
    ("zero_is_between", sgd(rule=lambda g, v, rate: (-rate * jnp.where(g == 0, 5.0, g), v)),
     "after a gradient of zero"),
    ("zero_is_between", sgd(rule=lambda g, v, rate: (-rate * jnp.where(jnp.signbit(g) & (g == 0), 1.0, g), v)),
     "tells a gradient of minus zero from one of zero"),
    ("one_slope", sgd(rule=lambda g, v, rate: (-rate * g.astype(jnp.float32), v)), "something is rounded"),
    ("shapes_alike", rule(lambda g: 0.5 if g.ndim == 5 else 1.0), r"one of shape [2, 1, 2, 1, 3] has others"),
    ("shapes_alike", rule(lambda g: 0.5 if g.ndim > 1 and 1 in g.shape else 1.0), "[1, 4], [4, 1]"),
    ("shapes_alike", rule(lambda g: (jnp.arange(g.size) < (g.size // 128 or 1) * 128).reshape(g.shape)), "[70, 70]"),
    ("precision_changes_little", rule(lambda g: 0.5 if g.dtype == jnp.float16 else 1.0), "float16: the updates of"),
    ("precision_changes_little", rule(lambda g: 0.5 if g.dtype == jnp.float32 else 1.0), "float32: the updates of"),
    ("settles", sgd(after=late), "the updates jump by"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "factory", "message"), BROKEN, ids=[f"{n}-{i}" for i, (n, *_) in enumerate(BROKEN)]
)
def test_a_law_of_regularity_finds_what_breaks_it(name, factory, message):
    assert law(name, sgd()) is None
    assert message in law(name, factory)


def test_a_rule_for_matrices_alone_is_no_irregularity():
    assert law("shapes_alike", rule(lambda g: 0.5 if g.ndim == 2 else 1.0)) is None


def test_a_frozen_leaf_is_no_irregularity():
    assert law("own_leaf", rule(lambda g: 0.0 if g.ndim == 1 else 1.0)) is None


def test_jumps_at_one_short_distance_are_a_refresh_and_no_defect():
    refresh = lambda u, s: (jax.tree.map(lambda x: jnp.where(s.count % 10 == 0, 0.9 * x, x), u), s)
    assert law("settles", sgd(after=refresh)) is None


def test_gathered_gradients_are_nothing_to_be_asked_at_once():
    waits = sgd(after=lambda u, s: (jax.tree.map(lambda x: jnp.where(s.count == 6, x, 0 * x), u), s))
    with pytest.raises(Skip, match="no update at all"):
        law("own_leaf", waits)


def around(check, factory):
    return dict(surroundings.questions(Subject(factory)))[check]()


def by_number(u, s):
    leaves, tree = jax.tree.flatten(u)
    return tree.unflatten([x * (1 + 0.1 * i) for i, x in enumerate(leaves)]), s


def sorted_as_text(u, s):
    leaves, tree = jax.tree.flatten(u)
    return tree.unflatten([leaves[i] for i in sorted(range(len(leaves)), key=str)]) if len(
        leaves
    ) > 10 else u, s


def of_batches(u, s):
    slow = lambda x: x * (0.5 if "Batch" in type(x).__name__ else 1.0)
    return jax.tree.map(slow, u), s


def of_shards(u, s):
    many = lambda x: isinstance(x, jax.Array) and not isinstance(x, jax.core.Tracer) and len(x.devices()) > 1
    return jax.tree.map(lambda x: x * 0.5 if many(x) else x, u), s


def with_mean(u, s):
    mean = sum(jnp.mean(x) for x in jax.tree.leaves(u))
    return jax.tree.map(lambda x: (x + 0 * mean).astype(x.dtype), u), s


def printing(u, s):
    jax.debug.callback(lambda count: None, s.count)
    return u, s


@pytest.mark.parametrize(
    ("check", "after", "message"),
    [
        ("leaves in another order", by_number, "under names in the opposite order"),
        ("more than ten leaves", sorted_as_text, "12 leaves in a list"),
        ("an empty leaf beside", with_mean, "beside a leaf without elements"),
        ("eager = vmap", of_batches, "vmapped, member 0"),
        ("eager on many devices", of_shards, "eagerly on 4 devices"),
        ("no host callbacks", printing, "debug_callback"),
    ],
    ids=["by number", "sorted as text", "mean of nothing", "batched", "sharded", "callback"],
)
def test_surroundings_that_change_a_number_are_found(check, after, message):
    around(check, sgd())
    with pytest.raises(Fail, match=message):
        around(check, sgd(after=after))


def test_params_that_may_be_left_out_must_change_nothing():
    def factory(learning_rate):
        def update(grads, state, params=None, **_):
            scale = 1.0 if params is None else 1.1
            return jax.tree.map(lambda g: -learning_rate * scale * g, grads), state

        return (lambda params: ()), update

    with pytest.raises(Fail, match="it works without params, and they change something"):
        around("params left out", factory)


def test_params_changed_in_place_are_found_where_they_are_not_zero():
    from purenets.conform.stability import questions

    def factory(learning_rate):
        def update(grads, state, params=None, **_):
            for p in jax.tree.leaves(params):
                if isinstance(p, np.ndarray) and p.ndim:
                    p *= 1.01
            return jax.tree.map(lambda g: -learning_rate * g, grads), state

        return (lambda params: ()), update

    with pytest.raises(Fail, match="changed the numbers of the parameters in place"):
        dict(questions(Subject(factory)))["inputs are left alone"]()


@pytest.mark.parametrize("check", ["leaves in another order", "more than ten leaves", "an empty leaf beside"])
def test_noise_may_depend_on_the_place_of_a_leaf(check):
    noisy = optax.chain(optax.add_noise(0.1, 0.5, key=jax.random.key(0)), optax.sgd(0.1))
    with pytest.raises(Skip, match="draws random numbers"):
        around(check, noisy)
