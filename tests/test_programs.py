"""Reading traced programs, and tracing once what is done to many leaves."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from purenets.programs import programs_inside, traced_once

LEAVES = [
    jnp.arange(3.0),
    jnp.ones((2, 2)),
    jnp.full(3, 4.0, jnp.float32),
    jnp.zeros(3),
    jnp.ones(3, jnp.bfloat16),
]


def counted():
    seen = []

    def rule(x):
        seen.append(jnp.shape(x))
        return 2 * x + 1, x.dtype.type(3) * x

    return rule, seen


def test_a_rule_is_traced_once_for_each_shape_and_dtype_and_the_program_is_the_same():
    rule, seen = counted()

    def program(function):
        @jax.jit
        def every(leaves):
            return [function(x) for x in leaves]

        return every.lower(LEAVES).as_text()

    once = program(traced_once(rule))
    assert seen == [(3,), (2, 2), (3,)]
    assert once == program(rule)
    assert "call" not in once


def test_outside_of_jit_the_rule_runs_as_it_is_and_nothing_is_compiled():
    rule, seen = counted()
    traced = traced_once(rule)
    for x in LEAVES:
        for a, b in zip(traced(x), rule(x), strict=True):
            np.testing.assert_array_equal(a, b)
    assert len(seen) == 2 * len(LEAVES)
    mapped = jax.vmap(lambda x: traced(x)[0])(jnp.ones((4, 3)))
    np.testing.assert_array_equal(mapped, np.full((4, 3), 3.0))
    assert seen[-1] == (3,)


@pytest.mark.parametrize(
    "transformed", [jax.jit, lambda f: jax.jit(jax.vmap(f)), lambda f: jax.vmap(jax.jit(f))]
)
def test_it_is_mapped_and_may_use_what_is_traced_around_it(transformed):
    def function(x, rate):
        rule = traced_once(lambda leaf: rate * leaf)
        return rule(x) + rule(2 * x)

    rates = jnp.arange(4.0)
    np.testing.assert_array_equal(transformed(function)(jnp.ones(4), rates), 3 * rates)
    slope = jax.grad(lambda r: jnp.sum(transformed(function)(jnp.ones(4), r)))(rates)
    np.testing.assert_array_equal(slope, np.full(4, 3.0))


def test_an_error_in_the_rule_comes_out_as_it_is():
    def rule(x):
        raise ValueError(f"no rule for {x.shape}")

    with pytest.raises(ValueError, match=r"no rule for \(3,\)"):
        jax.jit(traced_once(rule))(jnp.ones(3))


def test_the_program_of_a_custom_derivative_is_found_and_its_rules_are_not():
    program = jax.make_jaxpr(lambda x: jax.nn.relu(x))(1.0)
    inside = [inner for eqn in program.eqns for inner in programs_inside(eqn)]
    assert len(inside) == len(program.eqns) == 1
