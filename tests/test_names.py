"""Names of parts, and what serial, residual and branch do with their parts."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import purenets as pn
from purenets.layer import layer
from tests.small import (
    affine,
    filled,
    notes_of,
)

KEY = jax.random.key(0)
X = jnp.linspace(-1, 1, 6).reshape(2, 3)
close = functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ["train", "stream", "tap", "_part", "a/b", "a*", "{a}", "a,b", ""])
def test_a_name_that_is_reserved_or_not_plain_is_refused(name):
    for make in (pn.compose, pn.serial, lambda **parts: pn.branch(jnp.add, **parts)):
        with pytest.raises(ValueError, match="cannot name a part: it is reserved, or not a plain name"):
            make(**{name: affine(3, 3)})


def test_a_label_that_cannot_be_a_name_asks_for_one():
    odd = layer(None, lambda p, x: x, label="conv 3/2")
    with pytest.raises(ValueError, match="'conv 3/2_1' cannot name a part"):
        pn.serial(odd)
    assert list(pn.serial(conv=odd).parts) == ["conv"]


def test_a_name_given_twice_is_refused():
    with pytest.raises(
        ValueError, match=r"serial has two parts called \['affine_1'\]: name one of them otherwise"
    ):
        pn.serial(affine(3, 3), affine_1=affine(3, 3))


def test_a_branch_may_be_called_merge():
    close(pn.branch(lambda a: 2 * a, merge=jnp.sin).apply({}, {}, X)[0], 2 * jnp.sin(X))


def test_the_first_of_a_serial_takes_all_inputs():
    model = pn.serial(jnp.add, jnp.sin)
    close(model.apply({}, {}, X, 2 * X)[0], jnp.sin(3 * X))


def test_a_residual_adds_and_refuses_shapes_that_would_only_broadcast():
    model = pn.residual(affine(3, 3), skip=affine(3, 3))
    params, state = filled(model)
    close(
        model.apply(params, state, X)[0],
        X @ (params["body"]["kernel"] + params["skip"]["kernel"])
        + params["body"]["bias"]
        + params["skip"]["bias"],
    )
    narrow = pn.serial(pn.residual(affine(3, 1)))
    with pytest.raises(
        ValueError, match=r"cannot add body float32\[2, 1\] to skip float32\[2, 3\]"
    ) as caught:
        narrow.apply(*filled(narrow), X)
    place, cause = notes_of(caught.value)
    assert place == "at residual_1 (residual), given float32[2, 3]"
    assert "skip=dense(n_in, n_out)" in cause


def test_a_body_without_a_return_is_told_so():
    @pn.compose(part=affine(3, 3))
    def forgetful(m, x):
        m.part(x)

    with pytest.raises(TypeError, match="forgetful gave None as its output: its function may lack a return"):
        forgetful.apply(*filled(forgetful), X)


def test_remaking_with_other_names_is_refused():
    model = pn.serial(a=affine(3, 3), b=jnp.sin)
    with pytest.raises(ValueError, match=r"serial has parts \['a', 'b'\], got \['a'\]"):
        model.remake({"a": affine(3, 3)})
    remade = model.remake({"b": jnp.cos, "a": affine(3, 3)})
    assert list(remade.parts) == ["a", "b"]
