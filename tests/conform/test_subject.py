"""What is checked: anything that makes an (init, update) pair, its hyperparameters read and turned."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from purenets.conform import knobs
from purenets.conform.fields import counters, named_leaves
from purenets.conform.subject import Subject, load


class Descent:
    """A class whose objects are optimizers, and which is a factory of them itself."""

    def __init__(self, learning_rate):
        self.learning_rate = learning_rate

    def init(self, params):
        return ()

    def update(self, updates, state, params=None):
        return jax.tree.map(lambda g: -self.learning_rate * g, updates), state


@pytest.mark.parametrize(
    "factory",
    [
        "optax:sgd",
        optax.sgd,
        optax.sgd(0.1),
        tuple(optax.sgd(0.1)),
        lambda lr: optax.sgd(lr),
        Descent,
        Descent(0.1),
    ],
    ids=["text", "factory", "made", "tuple", "lambda", "class", "object"],
)
def test_anything_that_makes_a_pair_is_a_subject(factory):
    tx = Subject(factory).build()
    params = {"w": jnp.ones(2)}
    assert tx.update(params, tx.init(params), params)[0]["w"] == pytest.approx(-0.1)


@pytest.mark.parametrize(
    ("factory", "settings", "message"),
    [
        (3, None, "neither a factory nor an optimizer: int"),
        (lambda: 3, None, "must make an optimizer, an object with functions init and update, got int"),
        ("optax", None, "write package.module:name, for example optax:adam, got 'optax'"),
        ("optax:no_such", None, "names nothing that can be imported"),
        (optax.sgd, {"rate_of_learning": 1}, r"takes no \['rate_of_learning'\]; it takes \['learning_rate'"),
        (optax.lookahead, None, r"requires 'fast_optimizer'.*--set fast_optimizer=..."),
    ],
    ids=["number", "makes a number", "no colon", "no such", "unknown setting", "no guess"],
)
def test_what_cannot_be_checked_is_refused_with_a_reason(factory, settings, message):
    with pytest.raises(ValueError, match=message):
        Subject(factory, settings).build()


def test_hyperparameters_go_by_the_names_of_the_reference():
    def mine(lr, beta1=0.9, epsilon=1e-8):
        return optax.adam(lr, b1=beta1, eps=epsilon)

    subject = Subject(mine, {"lr": 0.5}, like=Subject("optax:adam"))
    assert list(subject.parameters) == ["learning_rate", "b1", "eps"]
    assert subject.held == {"learning_rate": 0.5}
    params = {"w": jnp.ones(1)}
    tx = subject.build({"learning_rate": 0.25, "b1": 0.0})
    # The first step is the rate, up to the float32 rounding of 1 - 0.999 in the bias correction.
    assert tx.update(params, tx.init(params), params)[0]["w"][0] == pytest.approx(-0.25, rel=5e-5)


def test_a_wrapper_of_keywords_takes_those_of_the_reference():
    subject = Subject(lambda *args, **keywords: optax.adam(*args, **keywords), like=Subject("optax:adam"))
    assert set(subject.parameters) == set(Subject("optax:adam").parameters)


def test_every_hyperparameter_is_turned_away_from_its_default():
    subject = Subject("optax:rmsprop")
    turned = {k.name: k for k in knobs.knobs(subject)}
    assert {k.kind for k in turned.values()} == {"number", "flag", "option"}
    assert set(turned) == set(subject.parameters)
    for knob in turned.values():
        assert subject.default(knob.name) not in knob.values


def test_numbers_are_turned_alone_and_together():
    subject = Subject("optax:adam")
    labels, rows = knobs.number_rows(knobs.knobs(subject), subject.default, {})
    assert labels[0] == "defaults"
    for name in ("learning_rate", "b1", "b2", "eps", "eps_root"):
        alone = [row for row in rows if [n for n in row if row[n] != rows[0][n]] == [name]]
        assert alone, name
    assert all(rows[-1][name] != rows[0][name] for name in rows[0])


def test_a_flag_is_turned_with_the_options_that_give_it_something_to_do():
    configs = knobs.configs(knobs.knobs(Subject("optax:sgd")), "learning_rate")
    nesterov = next(c for c in configs if c.label == "nesterov=True")
    assert nesterov.static["momentum"] is not None


def test_fields_of_a_state_are_found_by_name_wherever_they_stand():
    tx = optax.chain(optax.clip(1.0), optax.adam(lambda count: 0.1))
    names = list(named_leaves(tx.init({"a": {"b": np.zeros(2)}})))
    assert names == ["count,mu,nu#0.count", "count,mu,nu#0.mu/a/b", "count,mu,nu#0.nu/a/b", "count#0.count"]


def test_counters_are_scalars_of_a_counting_name():
    state = {"step": jnp.zeros((), jnp.int32), "count": jnp.zeros(3), "mu": jnp.zeros(())}
    assert list(counters(state)) == ["step"]


def test_extra_arguments_are_given_to_those_that_cannot_do_without():
    assert Subject("optax:polyak_sgd").needs == ("value", "grad", "value_fn")
    assert Subject("optax:adam").needs == ()


def test_text_names_nested_things_too():
    assert load("jax:nn.relu") is jax.nn.relu
