"""Params of Flax models as ours and back: the numbers are untouched, and the outputs are the same."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import purenets as pn
from purenets.interop import convert, gru_from_flax, gru_to_flax, inverse, lstm_from_flax, lstm_to_flax
from tests.layers.peers import normal, randomised


def assert_same(a, b):
    """Bit for bit, and of the same form."""
    assert jax.tree.structure(a) == jax.tree.structure(b)
    jax.tree.map(np.testing.assert_array_equal, a, b)


class Digits(nn.Module):
    """Convolution, running statistics, two dense layers."""

    @nn.compact
    def __call__(self, x, train=False):
        x = nn.relu(nn.BatchNorm(use_running_average=not train)(nn.Conv(4, (3, 3))(x)))
        x = nn.relu(nn.Dense(5)(x.reshape(len(x), -1)))
        return nn.Dense(3)(x)


DIGITS = pn.serial(
    conv=pn.conv(1, 4, 3),
    norm=pn.batch_norm(4),
    act=jax.nn.relu,
    flat=lambda x: x.reshape(len(x), -1),
    hidden=pn.dense(4 * 36, 5),
    act2=jax.nn.relu,
    out=pn.dense(5, 3),
)
RULES = {
    "Conv_0/**": "conv/**",
    "BatchNorm_0/**": "norm/**",
    "Dense_0/**": "hidden/**",
    "Dense_1/**": "out/**",
}


def test_a_whole_model_comes_over_with_its_statistics_and_goes_back():
    x = normal(2, 6, 6, 1)
    variables = Digits().init(jax.random.key(0), x)
    variables = {"params": randomised(variables["params"]), "batch_stats": variables["batch_stats"]}
    _, moved = Digits().apply(variables, x, train=True, mutable=["batch_stats"])
    variables |= moved
    statistics = {"BatchNorm_0/**": "norm/**"}
    params, state = convert(variables["params"], RULES), convert(variables["batch_stats"], statistics)
    out, _ = DIGITS.apply(params, state, x)
    np.testing.assert_allclose(out, Digits().apply(variables, x), rtol=1e-5, atol=1e-4)
    assert_same(convert(params, inverse(RULES)), variables["params"])
    assert_same(convert(state, inverse(statistics)), variables["batch_stats"])


IDS = jnp.array([[1, 0, 4]])
LEAVES = {
    "dense": (lambda: pn.dense(3, 4), nn.Dense(4), normal(2, 3)),
    "conv": (lambda: pn.conv(2, 4, 3, stride=2), nn.Conv(4, (3, 3), 2), normal(2, 6, 6, 2)),
    "layer norm": (lambda: pn.layer_norm(3), nn.LayerNorm(), normal(2, 3)),
    "group norm": (lambda: pn.group_norm(4, 2), nn.GroupNorm(2), normal(2, 5, 4)),
    "embedding": (lambda: pn.embedding(5, 4), nn.Embed(5, 4), IDS),
    "attention": (lambda: pn.attention(8, 2), nn.MultiHeadDotProductAttention(2), normal(2, 3, 8)),
}


@pytest.mark.parametrize("name", LEAVES)
def test_a_layer_of_flax_is_renamed_as_a_whole_and_back(name):
    make, theirs, x = LEAVES[name]
    model = pn.serial(part=make())
    params = {"Theirs_0": randomised(theirs.init(jax.random.key(0), x)["params"])}
    rules = {"Theirs_0/**": "part/**"}
    ours = convert(params, rules)
    out, _ = model.apply(ours, model.init(jax.random.key(0))[1], x)
    wanted = theirs.apply({"params": params["Theirs_0"]}, x)
    np.testing.assert_allclose(out, wanted, rtol=1e-5, atol=1e-4)
    assert_same(convert(ours, inverse(rules)), params)


@pytest.mark.parametrize("cell", [nn.LSTMCell(4), nn.OptimizedLSTMCell(4)], ids=["plain", "optimized"])
def test_an_lstm_of_flax_has_its_gates_put_side_by_side(cell):
    x = normal(2, 5, 3)
    theirs = nn.RNN(cell)
    params = randomised(theirs.init(jax.random.key(0), x)["params"]["cell"])
    ours = lstm_from_flax(params)
    model = pn.rnn(pn.lstm_cell(3, 4))
    start, state = model.init(jax.random.key(0))
    assert jax.tree.map(jnp.shape, start) == jax.tree.map(jnp.shape, ours)
    out, _ = model.apply(ours, state, x)
    np.testing.assert_allclose(out, theirs.apply({"params": {"cell": params}}, x), rtol=1e-5, atol=1e-6)
    assert_same(lstm_to_flax(ours), params)


def test_a_gru_of_flax_has_its_gates_put_side_by_side():
    x = normal(2, 5, 3)
    theirs = nn.RNN(nn.GRUCell(4))
    params = randomised(theirs.init(jax.random.key(0), x)["params"]["cell"])
    ours = gru_from_flax(params)
    model = pn.rnn(pn.gru_cell(3, 4))
    start, state = model.init(jax.random.key(0))
    assert jax.tree.map(jnp.shape, start) == jax.tree.map(jnp.shape, ours)
    out, _ = model.apply(ours, state, x)
    np.testing.assert_allclose(out, theirs.apply({"params": {"cell": params}}, x), rtol=1e-5, atol=1e-6)
    assert_same(gru_to_flax(ours), params)


def test_a_rule_may_leave_leaves_out_and_what_no_rule_names_stays():
    tree = {"a": {"kernel": 1, "step": 2}, "b": 3}
    assert convert(tree, {"**/step": None, "a/kernel": "c/w"}) == {"c": {"w": 1}, "b": 3}


def test_rules_that_cannot_be_turned_round_are_refused():
    with pytest.raises(ValueError, match=r"the rule for '\*\*/step' leaves leaves out"):
        inverse({"**/step": None})
    with pytest.raises(ValueError, match="the rules for 'a' and 'b' both lead to 'c'"):
        inverse({"a": "c", "b": "c"})


def test_a_rule_that_matches_nothing_is_refused():
    with pytest.raises(ValueError, match=r"'Dense_1/\*\*' matches no name; there are: Dense_0/kernel"):
        convert({"Dense_0": {"kernel": 1}}, {"Dense_1/**": "out/**"})


def test_two_leaves_that_would_become_one_are_refused():
    with pytest.raises(ValueError, match="both become 'c'"):
        convert({"a": 1, "b": 2}, {"a": "c", "b": "c"})


def test_params_of_other_cells_are_refused():
    with pytest.raises(ValueError, match=r"LSTM cell of Flax has the params hf, hg, .*, got kernel"):
        lstm_from_flax({"kernel": 1})
    peephole, _ = pn.rnn(pn.lstm_cell(3, 4, peephole=True)).init(jax.random.key(0))
    with pytest.raises(
        ValueError, match="a plain LSTM cell has the params bias, kernel, recurrent_kernel, got"
    ):
        lstm_to_flax(peephole)
    with pytest.raises(ValueError, match=r"GRU cell of Flax has the params hn, hr, .*, got kernel"):
        gru_from_flax({"kernel": 1})
    bare, _ = pn.rnn(pn.gru_cell(3, 4, bias=False)).init(jax.random.key(0))
    with pytest.raises(ValueError, match=r"a GRU cell has the params bias, kernel, recurrent_bias, .* got"):
        gru_to_flax(bare)
