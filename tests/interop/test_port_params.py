"""Every known mistake of porting is undone by what is tried for it, exactly; params are made wrong here in NumPy."""

import jax
import numpy as np
import pytest

import purenets as pn
from purenets.interop.port_params import other_params
from purenets.layers.heads import from_heads, to_heads
from purenets.paths import flatten, unflatten


def turned(leaf):
    return np.swapaxes(leaf, -1, -2)


def blocks(leaf, order):
    """The gates of the last axis in another order."""
    parts = np.split(leaf, len(order), -1)
    return np.concatenate([parts[i] for i in order], -1)


def within(leaf, gates):
    return np.concatenate([part.T for part in np.split(leaf, gates, -1)], -1)


def every(fn):
    return lambda own: {name: fn(leaf) for name, leaf in own.items()}


def only(name, fn):
    return lambda own: {**own, name: fn(own[name])}


def stored_in(order):
    """Gates that were saved in the order that these numbers of ours give, and are read as if they were ours."""
    return lambda own: {n: leaf if n == "recurrent_bias" else blocks(leaf, order) for n, leaf in own.items()}


def heads_last(kernel):
    """``[in, heads, size]`` from features that go ``[size, heads]``."""
    n_in, heads, size = kernel.shape
    return np.swapaxes(kernel, -1, -2).reshape(n_in, heads, size)


def channels_first(kernel):
    """Rows ``[2, 3, 4 channels]`` in the order in which a flatten of ``[channels, 2, 3]`` has them."""
    return np.moveaxis(kernel.reshape(2, 3, 4, -1), 2, 0).reshape(kernel.shape)


def negated_update(own):
    sign = np.repeat([1.0, -1.0, 1.0], 3)
    return {name: leaf if name == "recurrent_bias" else leaf * sign for name, leaf in own.items()}


MISTAKES = {
    "dense": (pn.dense(4, 4), only("kernel", turned), "its kernel is transposed"),
    "embedding": (pn.embedding(4, 4), every(turned), "its table is transposed"),
    "flatten": (
        pn.dense(24, 5),
        only("kernel", channels_first),
        "its features are those of a flatten with channels first: flattened=(4, 2, 3)",
    ),
    "conv": (
        pn.conv(3, 3, (3, 2)),
        only("kernel", turned),
        "its kernel has input and output channels exchanged",
    ),
    "window": (pn.conv(2, 3, (3, 2)), only("kernel", lambda k: k[::-1, ::-1]), "its window is turned round"),
    "axes of the window": (
        pn.conv(2, 3, 3),
        only("kernel", lambda k: np.swapaxes(k, 0, 1)),
        "its window has height and width exchanged",
    ),
    "window in time": (pn.conv(2, 3, (3,)), only("kernel", lambda k: k[::-1]), "its window is turned round"),
    "window in a volume": (
        pn.conv(2, 3, (3, 1, 2)),
        only("kernel", lambda k: k[::-1, ::-1, ::-1]),
        "its window is turned round",
    ),
    "transposed conv": (
        pn.conv_transpose(2, 3, (3, 2)),
        only("kernel", lambda k: k[::-1, ::-1]),
        "its window is turned round",
    ),
    "to heads": (
        to_heads(4, 2, 2),
        only("kernel", lambda k: k.reshape(4, 4).T.reshape(4, 2, 2)),
        "its kernel is transposed",
    ),
    "interleaved heads": (
        to_heads(5, 2, 3),
        only("kernel", heads_last),
        "its heads are interleaved: [head_dim, heads] instead of [heads, head_dim]",
    ),
    "from heads": (
        from_heads(2, 2, 4),
        only("kernel", lambda k: k.reshape(4, 4).T.reshape(2, 2, 4)),
        "its kernel is transposed",
    ),
    "interleaved heads back": (
        from_heads(2, 3, 5),
        only("kernel", lambda k: np.swapaxes(k, 0, 1).reshape(2, 3, 5)),
        "its heads are interleaved: [head_dim, heads] instead of [heads, head_dim]",
    ),
    "projections": (
        pn.attention(4, 2),
        lambda own: {
            name.replace("key", "x").replace("query", "key").replace("x", "query"): v
            for name, v in own.items()
        },
        "its projections stand in the order key, query, value",
    ),
    "projections in a circle": (
        pn.attention(4, 2),
        # Saved as value, query, key and read as query, key, value.
        lambda own: {
            {"value": "query", "query": "key", "key": "value", "out": "out"}[name.split("/")[0]]
            + "/"
            + name.split("/")[1]: v
            for name, v in own.items()
        },
        "its projections stand in the order value, query, key",
    ),
    "gates i, f, o, g": (
        pn.rnn(pn.lstm_cell(2, 3)),
        stored_in([0, 1, 3, 2]),
        "its gates stand in the order i, f, o, g",
    ),
    "gates o, i, f, g": (
        pn.rnn(pn.lstm_cell(2, 3)),
        stored_in([3, 0, 1, 2]),
        "its gates stand in the order o, i, f, g",
    ),
    "gates z, r, n": (
        pn.rnn(pn.gru_cell(2, 3)),
        stored_in([1, 0, 2]),
        "its gates stand in the order z, r, n",
    ),
    "recurrent kernel": (
        pn.rnn(pn.lstm_cell(2, 3)),
        only("recurrent_kernel", lambda k: within(k, 4)),
        "its recurrent_kernel is transposed within each gate",
    ),
    "kernel of a simple one": (
        pn.rnn(pn.elman_cell(3, 3)),
        only("kernel", turned),
        "its kernel is transposed within each gate",
    ),
    "update gate": (
        pn.rnn(pn.gru_cell(2, 3)),
        negated_update,
        "its update gate keeps what ours replaces: h' = z n + (1 - z) h",
    ),
    "scale less one": (
        pn.rms_norm(4),
        every(lambda scale: scale - 1),
        "its scale is stored less one (1 + weight)",
    ),
    "scale and bias": (
        pn.layer_norm(4),
        lambda own: {"scale": own["bias"], "bias": own["scale"]},
        "its scale and bias are exchanged",
    ),
}


def numbers(model, stacked=()):
    """Its params as numbers that are all different, of few bits so that sums with 1 are exact."""
    params, _ = jax.eval_shape(model.init, jax.random.key(0))
    rng = np.random.default_rng(0)
    return {
        name: rng.permutation(np.prod((*stacked, *leaf.shape), dtype=int)).reshape(*stacked, *leaf.shape)
        / 8.0
        for name, leaf in flatten(params).items()
    }


@pytest.mark.parametrize("name", MISTAKES)
def test_the_mistake_is_undone_and_is_called_by_its_name(name):
    model, spoil, says = MISTAKES[name]
    right = numbers(model)
    wrong = spoil(right)
    assert any(not np.array_equal(wrong[leaf], right[leaf]) for leaf in right)
    tried = dict(other_params(model, wrong, [(2, 3, 4)]))
    again = {**wrong, **tried[says]}
    for leaf in right:
        np.testing.assert_array_equal(again[leaf], right[leaf], err_msg=leaf)


@pytest.mark.parametrize(
    "name", ["dense", "conv", "window", "interleaved heads", "interleaved heads back", "flatten"]
)
def test_params_that_a_repeat_has_stacked_are_changed_in_every_member(name):
    model, spoil, says = MISTAKES[name]
    right = numbers(model, (2,))
    members = [spoil({leaf: value[i] for leaf, value in right.items()}) for i in range(2)]
    wrong = {leaf: np.stack([one[leaf] for one in members]) for leaf in right}
    tried = dict(other_params(model, wrong, [(2, 3, 4)]))
    for leaf in right:
        np.testing.assert_array_equal({**wrong, **tried[says]}[leaf], right[leaf])


def test_every_candidate_has_the_shapes_of_the_params():
    for model, _, _ in MISTAKES.values():
        own = numbers(model)
        for says, changed in other_params(model, own, [(2, 3, 4)]):
            assert unflatten(changed), says
            for name, leaf in changed.items():
                assert leaf.shape == own[name].shape, says


def test_what_cannot_be_is_not_tried():
    says = [s for s, _ in other_params(pn.dense(3, 4), {"kernel": np.ones((3, 4))}, [(2, 3, 4)])]
    assert says == []
