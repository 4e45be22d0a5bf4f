"""The laws of layers: they hold for good layers, and each finds the layer that breaks it."""

import jax
import jax.numpy as jnp
import pytest

import purenets as pn
from purenets import compose, dense, layer, serial
from purenets.conform import LAYER_LAWS, NonConformance, check_layer
from purenets.layer import Layer


class Pair:
    """A layer that is nobody's class."""

    label = "pair"

    def __init__(self, init=None, apply=None):
        self.init = init or (lambda key: ({"w": jax.random.normal(key, (3,))}, {}))
        self.apply = apply or (lambda p, s, x, key=None, train=False: (jnp.tanh(p["w"] * x), s))


def broken(law, *shapes, **parts):
    report = check_layer(Pair(**parts), *(shapes or ((2, 3),)), laws=law, raises=False)
    return report.failures[0].detail if report.failures else None


def test_a_foreign_layer_is_held_to_all_laws_but_those_of_wrappers():
    report = check_layer(Pair(), (2, 3))
    skipped = {row.check for row in report.rows if row.status == "skip"}
    assert "repeat_is_loop" in skipped
    assert "gradients_are_right" not in skipped


def test_a_layer_with_parts_state_and_masks_keeps_every_law():
    def count(params, state, x, *, key, train):
        if not train:
            return x, state
        if key is None:
            raise ValueError("a key is needed in training")
        return x * jax.random.bernoulli(key, 0.5, x.shape), {"calls": state["calls"] + 1}

    mask = layer(None, count, state=lambda key: {"calls": jnp.zeros((), jnp.int32)}, label="mask")

    @compose(inner=serial(dense(3, 4), jnp.tanh), mask=mask, out=dense(4, 3))
    def model(m, x):
        return x + m.out(m.mask(m.inner(x)))

    report = check_layer(model, (2, 3))
    assert [row.check for row in report.rows if row.status == "skip"] == ["stream_in_any_cut"]
    assert len(report.rows) == len(LAYER_LAWS)


@pytest.mark.parametrize(
    ("law", "parts", "message"),
    [
        ("plain_trees", {"init": lambda key: ({"w": None}, {})}, "params/w is NoneType and not an array"),
        ("plain_trees", {"init": lambda key: ({"a": {}}, {})}, "params/a is an empty dict"),
        ("plain_trees", {"init": lambda key: [jnp.ones(3)]}, "init must return (params, state)"),
        ("state_keeps_form", {"apply": lambda p, s, x, key=None, train=False: (x, {"n": x})}, "the state after"),
        ("evaluation_is_pure",
         {"apply": lambda p, s, x, key=None, train=False: (x + (0 if key is None else jax.random.normal(key)), s)},
         "evaluation with another key"),
        ("unknown_arguments_fail", {"apply": lambda p, s, x, key=None, train=False, **rest: (x, s)}, "swallows"),
        ("needs_its_key",
         {"apply": lambda p, s, x, key=None, train=False: (x + (key.shape[0] if train else 0), s)},
         "training without a key fails with AttributeError"),
        ("two_modes_two_traces",
         {"init": lambda key: ({"w": jnp.ones(3)}, {"n": jnp.asarray(0)}),
          "apply": lambda p, s, x, key=None, train=False: (x, {"n": jnp.zeros((), jnp.int32)})},
         "were traced"),
    ],
    ids=["none", "empty", "no pair", "state", "key in evaluation", "keywords", "key error", "traces"],
)  # fmt: skip
def test_a_law_finds_the_layer_that_breaks_it(law, parts, message):
    assert message in broken(law, **parts)


def test_a_wrong_derivative_is_found_and_located():
    @jax.custom_vjp
    def square(x):
        return x * x

    square.defvjp(lambda x: (x * x, x), lambda x, g: (g * x,))
    wrong = lambda p, s, x, key=None, train=False: (square(p["w"]) + x, s)
    assert "argument 0/w[0]: the gradient is" in broken("gradients_are_right", apply=wrong)


def test_a_layer_whose_members_share_a_key_is_found_in_repeat():
    noisy = lambda p, x, *, key, train: (
        x + (jax.random.normal(key, x.shape) if train and key is not None else 0)
    )
    good = layer(None, noisy, label="noise")
    assert check_layer(good, (2, 3), laws=["repeat_is_loop", "sibling_changes_nothing"]).ok
    odd = Layer(
        lambda key: ({"w": jax.random.normal(jax.random.key(0), (3,))}, {}),
        lambda p, s, x, *, key=None, train=False, **_: (x * p["w"], s),
        "same weights", {}, lambda parts: odd,
    )  # fmt: skip
    # Its init ignores the key, which two of the laws must not mind and one does.
    assert check_layer(odd, (2, 3), laws=["repeat_is_loop", "init_is_pure"]).ok
    assert not check_layer(odd, (2, 3), laws=["unknown_arguments_fail"], raises=False).ok


def test_unknown_laws_are_refused_and_laws_can_be_left_out():
    with pytest.raises(ValueError, match="no law"):
        check_layer(Pair(), (2, 3), laws="gradients_are_wrong")
    report = check_layer(Pair(), (2, 3), laws=["plain_trees", "init_many"], skip=["init_many"])
    assert [row.check for row in report.rows] == ["plain_trees"]


def test_a_broken_layer_raises_with_its_report():
    with pytest.raises(NonConformance, match="pair does not conform") as caught:
        check_layer(Pair(init=lambda key: ({"w": None}, {})), (2, 3), laws="plain_trees")
    assert not caught.value.report.ok


def test_gradients_that_are_zero_but_for_rounding_raise_no_alarm():
    # The bias before a batch norm has no effect, so that its gradient is what rounding leaves of zero.
    model = pn.serial(dense=pn.dense(3, 3), norm=pn.batch_norm(3), tanh=jnp.tanh)
    assert check_layer(model, (8, 3), laws=["repeat_is_loop", "remat_is_plain"]).ok


def test_a_layer_without_params_has_nothing_to_map_over():
    report = check_layer(pn.dropout(0.5), (2, 3), laws="vmap_over_params")
    assert report.ok
    assert "neither params nor state" in str(report)
