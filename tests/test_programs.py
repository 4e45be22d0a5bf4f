"""Reading traced programs, and tracing once what is done to many leaves."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.extend.core import jaxpr_as_fun

from purenets.programs import alike, for_each, program_of, programs_inside


def counted():
    seen = []

    def rule(x, y):
        seen.append(jnp.shape(x))
        return 2 * x + y["y"], x.dtype.type(3) * x

    return rule, seen


def rows(count):
    return [(jnp.arange(3.0) + at, {"y": jnp.ones(3)}) for at in range(count)]


def test_rows_are_alike_by_the_shapes_and_dtypes_of_what_stands_at_the_same_places():
    ones = jnp.ones(3)
    given = [
        (ones, (ones, None)),
        (ones, (jnp.ones(2), None)),
        (2 * ones, (ones, None)),
        (ones.astype(jnp.bfloat16), (ones, None)),
        (ones, (None, ones)),
        (None, (ones, None)),
        (1.0, (ones, None)),
        (np.ones(3, np.float32), (ones, None)),
        (1, (ones, None)),
        (2.0, (ones, None)),
        (jax.random.key(0), (ones, None)),
    ]
    assert alike(given) == [[0, 2], [1], [3], [4], [5], [6, 9], [7], [8], [10]]
    assert alike([]) == []


@pytest.mark.parametrize("count", [0, 1, 3, 4, 16, 17, 24, 30])
def test_the_program_is_as_if_the_rule_had_been_traced_for_every_row(count):
    rule, seen = counted()

    def program(function):
        return jax.jit(lambda some: function(some)).lower(rows(count)).as_text()

    once = program(lambda some: for_each(rule, some))
    assert len(seen) == (count if count < 4 else 1)
    assert once == program(lambda some: [rule(*row) for row in some])
    assert "call" not in once


def test_outside_of_jit_the_rule_runs_as_it_is_and_nothing_is_compiled():
    rule, seen = counted()
    for (a, b), (x, y) in zip(for_each(rule, rows(20)), rows(20), strict=True):
        np.testing.assert_array_equal(a, 2 * x + y["y"])
        np.testing.assert_array_equal(b, 3 * x)
    assert len(seen) == 20

    def mapped(x):
        return sum(a for a, _ in for_each(rule, [(x, {"y": x})] * 5))

    np.testing.assert_array_equal(jax.vmap(mapped)(jnp.ones((4, 3))), np.full((4, 3), 15.0))
    assert seen[20:] == [(3,)] * 5


@pytest.mark.parametrize(
    "transformed", [jax.jit, lambda f: jax.jit(jax.vmap(f)), lambda f: jax.vmap(jax.jit(f))]
)
def test_it_is_mapped_and_may_use_what_is_traced_around_it(transformed):
    def function(x, rate):
        return sum(for_each(lambda leaf: rate * leaf, [(x,), (2 * x,)] * 9))

    rates = jnp.arange(4.0)
    np.testing.assert_array_equal(transformed(function)(jnp.ones(4), rates), 27 * rates)
    slope = jax.grad(lambda r: jnp.sum(transformed(function)(jnp.ones(4), r)))(rates)
    np.testing.assert_array_equal(slope, np.full(4, 27.0))


def test_an_error_in_the_rule_comes_out_as_it_is():
    def rule(x):
        raise ValueError(f"no rule for {x.shape}")

    for count in (1, 5, 20):
        with pytest.raises(ValueError, match=r"no rule for \(3,\)"):
            jax.jit(lambda x, count=count: for_each(rule, [(x,)] * count))(jnp.ones(3))


def test_the_program_of_a_custom_derivative_is_found_and_its_rules_are_not():
    program = jax.make_jaxpr(lambda x: jax.nn.relu(x))(1.0)
    inside = [inner for eqn in program.eqns for inner in programs_inside(eqn)]
    assert len(inside) == len(program.eqns) == 1


@pytest.mark.parametrize("checked", [False, True])
def test_a_program_is_that_of_make_jaxpr_but_for_the_names(checked):
    def around(rate):
        def function(x, y):
            return [rate * x + y, jnp.sum(y), jnp.cumsum(x)]

        arrays = jnp.arange(3.0), jnp.ones(3)
        program = program_of(function, [jax.typeof(x) for x in arrays])
        usual = jax.make_jaxpr(function)(*arrays)
        assert [eqn.primitive for eqn in program.jaxpr.eqns] == [eqn.primitive for eqn in usual.jaxpr.eqns]
        assert program.in_avals == usual.in_avals
        assert program.out_avals == usual.out_avals
        return jaxpr_as_fun(program)(*arrays)

    with jax.enable_checks(checked):
        scaled, total, sums = jax.jit(around)(2.0)
    np.testing.assert_array_equal(scaled, [1, 3, 5])
    np.testing.assert_array_equal(total, 3)
    np.testing.assert_array_equal(sums, [0, 1, 3])
