"""Recurrent layers beside Flax, torch and formulas; streams in any cut; derivatives of every kind."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import purenets as pn
from purenets.layers.cells import elman_cell, gru_cell, lstm_cell
from purenets.layers.lstm_sequence import lstm_sequence
from purenets.layers.recurrent import bidirectional, last_step, rnn, stacked
from purenets.layers.state_space import lru_cell
from tests.layers.peers import normal, randomised

N_IN, N_OUT, TIME, BATCH = 3, 4, 6, 3
X = normal(BATCH, TIME, N_IN)
LENGTHS = jnp.array([6, 2, 4])
CELLS = {
    "elman": lambda: elman_cell(N_IN, N_OUT),
    "lstm": lambda: lstm_cell(N_IN, N_OUT),
    "peephole": lambda: lstm_cell(N_IN, N_OUT, peephole=True),
    "layer-normalised": lambda: lstm_cell(N_IN, N_OUT, layer_norm=True),
    "gru": lambda: gru_cell(N_IN, N_OUT),
    "lru": lambda: lru_cell(N_IN, 5, N_OUT),
}


def _drawn(model, scale=0.5):
    params, state = model.init(jax.random.key(0))
    return jax.tree.map(lambda leaf: scale * leaf, randomised(params)), state


def _to_flax(params, kind):
    """Our gates side by side as Flax's gates apart."""
    if kind == "elman":
        return {
            "i": {"kernel": params["kernel"], "bias": params["bias"]},
            "h": {"kernel": params["recurrent_kernel"]},
        }
    gates = {"lstm": "ifgo", "gru": "rzn"}[kind]
    cut = {name: jnp.split(leaf, len(gates), -1) for name, leaf in params.items() if name != "recurrent_bias"}
    theirs = {}
    for i, gate in enumerate(gates):
        theirs[f"i{gate}"] = {"kernel": cut["kernel"][i]}
        theirs[f"h{gate}"] = {"kernel": cut["recurrent_kernel"][i]}
        theirs[f"{'h' if kind == 'lstm' else 'i'}{gate}"]["bias"] = cut["bias"][i]
    if kind == "gru":
        theirs["hn"]["bias"] = params["recurrent_bias"]
    return theirs


def _flax_cell(kind):
    return {"elman": nn.SimpleCell, "lstm": nn.OptimizedLSTMCell, "gru": nn.GRUCell}[kind](N_OUT)


def _compare(ours, theirs, params, x):
    """Values and the gradients of params and input."""
    weights = normal(*jax.eval_shape(ours, params, x).shape, seed=4)
    for f, g in (
        (ours, theirs),
        *[[jax.grad(lambda *a, f=f: jnp.vdot(weights, f(*a)), (0, 1)) for f in (ours, theirs)]],
    ):
        found, wanted = jax.jit(f)(params, x), jax.jit(g)(params, x)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-4, atol=2e-5), found, wanted)


@pytest.mark.covers("M54", "M57")
@pytest.mark.parametrize("lengths", [None, LENGTHS], ids=["whole", "lengths"])
@pytest.mark.parametrize("reverse", [False, True], ids=["forward", "reverse"])
@pytest.mark.parametrize("kind", ["elman", "lstm", "gru"])
def test_it_agrees_with_flax_in_values_and_gradients(kind, reverse, lengths):
    model = rnn(CELLS[kind](), reverse=reverse)
    twin = nn.RNN(_flax_cell(kind), reverse=reverse, keep_order=True)
    params, state = _drawn(model)
    counts = 1.0 if lengths is None else (jnp.arange(TIME) < lengths[:, None])[..., None]

    def ours(params, x):
        return model.apply(params, state, x, lengths=lengths)[0]

    def theirs(params, x):
        return twin.apply({"params": {"cell": _to_flax(params, kind)}}, x, seq_lengths=lengths) * counts

    _compare(ours, theirs, params, X)


@pytest.mark.parametrize("lengths", [None, LENGTHS], ids=["whole", "lengths"])
def test_both_directions_agree_with_flax(lengths):
    model = bidirectional(CELLS["lstm"](), CELLS["gru"]())
    params, state = _drawn(model)
    twin = nn.Bidirectional(nn.RNN(_flax_cell("lstm")), nn.RNN(_flax_cell("gru")))
    moved = {
        "forward_rnn": {"cell": _to_flax(params["forward"], "lstm")},
        "backward_rnn": {"cell": _to_flax(params["backward"], "gru")},
    }
    counts = 1.0 if lengths is None else (jnp.arange(TIME) < lengths[:, None])[..., None]
    theirs = twin.apply({"params": moved}, X, seq_lengths=lengths)
    found = model.apply(params, state, X, lengths=lengths)[0]
    np.testing.assert_allclose(found, theirs * counts, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", ["elman", "lstm", "gru"])
def test_it_agrees_with_torch_in_values_and_gradients(kind):
    """Torch has two biases where one would do; ours goes to the first, the recurrent one of the GRU to the second."""
    torch = pytest.importorskip("torch")
    theirs = {"elman": torch.nn.RNN, "lstm": torch.nn.LSTM, "gru": torch.nn.GRU}[kind](
        N_IN, N_OUT, batch_first=True
    )
    model = rnn(CELLS[kind]())
    params, _ = _drawn(model)
    with torch.no_grad():
        theirs.weight_ih_l0.copy_(torch.tensor(np.array(params["kernel"].T)))
        theirs.weight_hh_l0.copy_(torch.tensor(np.array(params["recurrent_kernel"].T)))
        theirs.bias_ih_l0.copy_(torch.tensor(np.array(params["bias"])))
        theirs.bias_hh_l0.zero_()
        if kind == "gru":
            theirs.bias_hh_l0[2 * N_OUT :] = torch.tensor(np.array(params["recurrent_bias"]))
    x = torch.tensor(np.array(X), requires_grad=True)
    y, _ = theirs(x)
    weights = normal(*y.shape, seed=4)
    (y * torch.tensor(np.array(weights))).sum().backward()
    np.testing.assert_allclose(model.apply(params, {}, X)[0], y.detach(), rtol=1e-4, atol=1e-5)
    dp, dx = jax.grad(lambda p, x: jnp.vdot(weights, model.apply(p, {}, x)[0]), (0, 1))(params, X)
    np.testing.assert_allclose(dx, x.grad, rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(dp["kernel"].T, theirs.weight_ih_l0.grad, rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(dp["recurrent_kernel"].T, theirs.weight_hh_l0.grad, rtol=1e-3, atol=1e-5)


# Against the formulas, in NumPy and float64.


def _sigmoid(z):
    return 1 / (1 + np.exp(-z))


def _norm(z, scale, offset=0.0):
    return (z - z.mean(-1, keepdims=True)) / np.sqrt(z.var(-1, keepdims=True) + 1e-6) * scale + offset


def _oracle(kind, p, x):
    p = {name: np.asarray(leaf, np.float64) for name, leaf in p.items()}
    c = h = np.zeros((len(x), N_OUT))
    out = []
    for now in np.moveaxis(np.asarray(x, np.float64), 1, 0):
        ahead, back = now @ p["kernel"], h @ p["recurrent_kernel"]
        if kind == "layer-normalised":
            ahead, back = _norm(ahead, p["input_scale"]), _norm(back, p["recurrent_scale"])
        i, f, g, o = np.split(ahead + back + p["bias"], 4, -1)
        w = p.get("peephole", np.zeros(3))
        c = _sigmoid(f + w[1] * c) * c + _sigmoid(i + w[0] * c) * np.tanh(g)
        shown = _norm(c, p["cell_scale"], p["cell_bias"]) if kind == "layer-normalised" else c
        h = _sigmoid(o + w[2] * c) * np.tanh(shown)
        out.append(h)
    return np.stack(out, 1)


@pytest.mark.parametrize("kind", ["lstm", "peephole", "layer-normalised"])
def test_the_long_short_term_memories_follow_their_formulas(kind, x64):
    model = rnn(CELLS[kind]())
    params = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float64), _drawn(model)[0])
    x = jnp.asarray(X, jnp.float64)
    np.testing.assert_allclose(
        model.apply(params, {}, x)[0], _oracle(kind, params, x), rtol=1e-10, atol=1e-12
    )


@pytest.mark.covers("M54")
def test_both_forms_of_the_vanilla_network_are_equal(x64):
    """``tanh(W_xh x + W_hh h) = tanh(W [h; x])`` with the matrices side by side."""
    model = rnn(elman_cell(N_IN, N_OUT, bias=False))
    params, _ = _drawn(model)
    both = jnp.concatenate([params["recurrent_kernel"], params["kernel"]], 0)
    h = jnp.zeros((BATCH, N_OUT))
    for t in range(TIME):
        h = jnp.tanh(jnp.concatenate([h, X[:, t]], -1) @ both)
    np.testing.assert_allclose(model.apply(params, {}, X)[0][:, -1], h, rtol=1e-6, atol=1e-7)


@pytest.mark.covers("M54")
def test_a_step_of_the_vanilla_network_has_the_printed_jacobian(x64):
    """``dh' / dh = diag(1 - h'^2) W_hh``."""
    cell = elman_cell(N_IN, N_OUT)
    params = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float64), _drawn(rnn(cell))[0])
    h, x = jnp.asarray(normal(1, N_OUT, seed=5)), cell.project(params, jnp.asarray(X[:1, 0], jnp.float64))
    after = cell.step(params, h, x)[1][0]
    jacobian = jax.jacobian(lambda h: cell.step(params, h[None], x)[1][0])(h[0])
    wanted = np.diag(1 - np.asarray(after) ** 2) @ np.asarray(params["recurrent_kernel"]).T
    np.testing.assert_allclose(jacobian, wanted, rtol=1e-6)


@pytest.mark.covers("M56")
@pytest.mark.parametrize("largest", [0.5, 1.5])
def test_the_gradient_of_a_linear_network_is_a_power_of_its_matrix(largest, x64):
    model = rnn(elman_cell(N_IN, N_OUT, activation=lambda z: z, bias=False))
    params = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float64), _drawn(model)[0])
    u, s, v = np.linalg.svd(params["recurrent_kernel"])
    matrix = u @ np.diag(s / s[0] * largest) @ v
    params["recurrent_kernel"] = jnp.asarray(matrix)
    jacobian = jax.jacobian(lambda x: model.apply(params, {}, x)[0][0, -1])(jnp.asarray(X[:1], jnp.float64))
    first = np.asarray(jacobian)[:, 0, 0]
    wanted = (np.asarray(params["kernel"]) @ np.linalg.matrix_power(matrix, TIME - 1)).T
    np.testing.assert_allclose(first, wanted, rtol=1e-9, atol=1e-12)
    assert np.linalg.norm(first) <= np.linalg.norm(params["kernel"]) * largest ** (TIME - 1) * (1 + 1e-9)


@pytest.mark.covers("M57", "G19")
def test_a_forget_gate_of_one_keeps_the_cell_and_its_gradient_exactly():
    cell = lstm_cell(N_IN, N_OUT)
    params = jax.tree.map(jnp.zeros_like, cell.init(jax.random.key(0)))
    shut, open_ = -200.0, 200.0
    params["bias"] = jnp.repeat(jnp.array([shut, open_, 0.0, 0.0]), N_OUT)
    c = normal(BATCH, N_OUT, seed=6)
    kept = lambda c: rnn_last_cell(cell, params, c)
    np.testing.assert_array_equal(kept(c), c)
    np.testing.assert_array_equal(jax.jacobian(lambda c: kept(c[None])[0])(c[0]), np.eye(N_OUT))


def rnn_last_cell(cell, params, c):
    """The cell after all steps, begun from c."""
    x = jnp.moveaxis(jnp.broadcast_to(X[:1], (len(c), TIME, N_IN)), 1, 0)
    return cell.sequence(params, (c, jnp.zeros_like(c)), x)[0][0]


@pytest.mark.parametrize("kind", ["lstm", "lru"])
def test_a_sequence_at_once_is_its_steps_in_values_and_all_derivatives(kind, x64):
    cell = CELLS[kind]()
    params = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float64), _drawn(rnn(cell), 0.3)[0])
    x = jnp.asarray(X, jnp.float64)
    at_once = lambda p, x: rnn(cell).apply(p, {}, x)[0]
    steps = lambda p, x: rnn(cell).apply(p, {}, x, lengths=jnp.full(len(x), TIME))[0]

    def derivatives(f):
        loss = lambda p: jnp.sum(jnp.sin(f(p, x)) ** 2)
        gradient = jax.grad(loss)
        return (
            f(params, x),
            gradient(params),
            jax.grad(lambda x: jnp.sum(f(params, x) ** 2))(x),
            jax.jvp(gradient, (params,), (params,))[1],
            jax.grad(lambda p: sum(jnp.sum(g**2) for g in jax.tree.leaves(gradient(p))))(params),
            jax.vmap(lambda row: f(params, row[None])[0])(x),
        )

    found, wanted = (jax.jit(lambda f=f: derivatives(f))() for f in (at_once, steps))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-9), found, wanted)


def test_the_gradient_of_the_weights_is_taken_after_the_loop_and_not_in_it():
    """No array of the shape of the recurrent matrix is carried by a loop of the backward pass."""
    arguments = (
        jnp.ones((3, 20)),
        jnp.ones((5, 20)),
        jnp.ones(20),
        jnp.ones((7, 2, 3)),
        *[jnp.ones((2, 5))] * 2,
    )
    jaxpr = jax.make_jaxpr(jax.grad(lambda w, *rest: lstm_sequence(*rest[:1], w, *rest[1:])[0].sum()))(
        arguments[1], arguments[0], *arguments[2:]
    )
    loops = [eqn for eqn in jaxpr.eqns if eqn.primitive.name == "scan"]
    assert len(loops) == 2
    for loop in loops:
        each_turn = loop.params["jaxpr"].jaxpr.outvars  # what is stacked has one axis less here
        pairs = zip(loop.outvars, each_turn, strict=True)
        carried = [v.aval.shape for v, one in pairs if v.aval.shape == one.aval.shape]
        assert set(carried) == {(2, 5)}


@pytest.mark.parametrize("kind", CELLS)
def test_a_stream_in_any_cut_is_the_whole_sequence(kind):
    model = pn.serial(below=rnn(CELLS[kind]()), above=rnn(gru_cell(N_OUT, 2)))
    params, state = _drawn(model)
    whole = model.apply(params, state, X)[0]
    for cuts in ([1] * TIME, [2, 1, 3], [TIME]):
        opened = pn.open_stream(model, state, batch=BATCH, length=TIME)
        parts, start = [], 0
        for size in cuts:
            y, opened = model.apply(params, opened, X[:, start : start + size], stream=True)
            parts.append(y)
            start += size
        np.testing.assert_allclose(jnp.concatenate(parts, 1), whole, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", ["elman", "lstm", "gru"])
def test_truncated_backpropagation_through_time_is_training_a_stream(kind):
    """The gradient of the second half alone, from a carry that is held constant."""
    model = rnn(CELLS[kind]())
    params, state = _drawn(model)
    opened = pn.open_stream(model, state, batch=BATCH, length=TIME)
    _, middle = model.apply(params, opened, X[:, :3], train=True, stream=True)
    late = lambda p, carried: jnp.sum(model.apply(p, carried, X[:, 3:], train=True, stream=True)[0] ** 2)
    truncated = jax.grad(late)(params, middle)

    def held(p):
        _, carried = model.apply(p, opened, X[:, :3], stream=True)
        return late(p, jax.lax.stop_gradient(carried))

    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), truncated, jax.grad(held)(params)
    )
    through = jax.grad(lambda p: late(p, model.apply(p, opened, X[:, :3], stream=True)[1]))(params)
    assert (
        max(jax.tree.leaves(jax.tree.map(lambda a, b: float(jnp.abs(a - b).max()), truncated, through)))
        > 1e-3
    )


@pytest.mark.parametrize("kind", CELLS)
def test_what_lies_beyond_the_length_changes_nothing_and_gives_zeros(kind):
    model = rnn(CELLS[kind]())
    params, state = _drawn(model)
    y = model.apply(params, state, X, lengths=LENGTHS)[0]
    beyond = jnp.arange(TIME) >= LENGTHS[:, None]
    other = jnp.where(beyond[..., None], 1e3, X)
    np.testing.assert_array_equal(y, model.apply(params, state, other, lengths=LENGTHS)[0])
    assert float(jnp.abs(jnp.where(beyond[..., None], y, 0)).max()) == 0
    alone = model.apply(params, state, X[1:2, :2])[0]
    np.testing.assert_allclose(y[1:2, :2], alone, rtol=1e-5, atol=1e-6)
    last = last_step().apply({}, {}, y, lengths=LENGTHS)[0]
    np.testing.assert_array_equal(last, y[jnp.arange(BATCH), LENGTHS - 1])


def test_the_modulus_of_the_linear_unit_stays_between_its_radii_and_the_state_keeps_the_variance():
    cell = lru_cell(1, 100, 1, radius=(0.5, 0.9))
    params = cell.init(jax.random.key(0))
    modulus = np.exp(-np.exp(np.asarray(params["decay"], np.float64)))
    assert 0.5 < modulus.min() < 0.56
    assert 0.85 < modulus.max() < 0.9
    np.testing.assert_allclose(np.mean(modulus**2), (0.25 + 0.81) / 2, atol=0.05)
    params["input"] = jnp.concatenate([jnp.ones((1, 100)), jnp.zeros((1, 100))], 1)
    (h, _) = cell.sequence(params, cell.carry(4096), jax.random.normal(jax.random.key(1), (60, 4096, 1)))
    np.testing.assert_allclose(np.mean(np.abs(h) ** 2), 1.0, atol=0.1)


@pytest.mark.covers("M58")
def test_one_cell_serves_every_mode_of_sequences():
    """Many to many, many to one, one to many, and an encoder whose last carry begins the decoder."""
    cell = gru_cell(N_IN, N_OUT)
    params, state = _drawn(rnn(cell))
    many = rnn(cell).apply(params, state, X)[0]
    assert many.shape == (BATCH, TIME, N_OUT)
    one = pn.serial(rnn=rnn(cell), last=last_step())
    np.testing.assert_array_equal(one.apply({"rnn": params}, state, X)[0], many[:, -1])
    held = jnp.concatenate([X[:, :1], jnp.zeros((BATCH, TIME - 1, N_IN))], 1)
    spread = rnn(cell).apply(params, state, held)[0]
    assert (
        float(
            jnp.abs(jax.jacobian(lambda x: rnn(cell).apply(params, {}, x)[0][0, -1].sum())(held)[0, 0]).max()
        )
        > 0
    )
    assert spread.shape == many.shape
    opened = pn.open_stream(rnn(cell), state, batch=BATCH, length=2 * TIME)
    _, encoded = rnn(cell).apply(params, opened, X, stream=True)
    decoded, _ = rnn(cell).apply(params, encoded, X[:, ::-1], stream=True)
    together = rnn(cell).apply(params, state, jnp.concatenate([X, X[:, ::-1]], 1))[0][:, TIME:]
    np.testing.assert_allclose(decoded, together, rtol=1e-5, atol=1e-6)


def test_cells_over_each_other_are_the_layers_one_after_another():
    model = stacked(lstm_cell(N_IN, N_OUT), gru_cell(N_OUT, 5))
    params, state = _drawn(model)
    below = rnn(lstm_cell(N_IN, N_OUT)).apply(params["rnn_1"], {}, X, lengths=LENGTHS)[0]
    above = rnn(gru_cell(N_OUT, 5)).apply(params["rnn_2"], {}, below, lengths=LENGTHS)[0]
    np.testing.assert_allclose(model.apply(params, state, X, lengths=LENGTHS)[0], above, rtol=1e-5, atol=1e-6)


def test_recurrent_layers_stack_in_depth_and_side_by_side():
    inner = pn.residual(rnn(lstm_cell(N_IN, N_IN)))
    for lifted in (pn.repeat(inner, 2), pn.ensemble(inner, 2)):
        params, state = lifted.init(jax.random.key(0))
        opened = pn.open_stream(lifted, state, batch=BATCH, length=TIME)
        whole = lifted.apply(params, state, X)[0]
        first, opened = lifted.apply(params, opened, X[:, :2], stream=True)
        rest, _ = lifted.apply(params, opened, X[:, 2:], stream=True)
        np.testing.assert_allclose(jnp.concatenate([first, rest], -2), whole, rtol=1e-5, atol=1e-6)


def _refused(model, x, **options):
    params, state = model.init(jax.random.key(0))
    with pytest.raises(ValueError) as caught:
        model.apply(params, state, x, **options)
    return "\n".join([str(caught.value), *getattr(caught.value, "__notes__", [])])


@pytest.mark.parametrize(
    ("x", "options", "message"),
    [
        (X[..., :2], {}, "needs a last axis of 3"),
        (X[0], {}, "x[None]"),
        (X, {"lengths": jnp.array([1, 7, 2])}, "has 6 steps, got lengths from 1 to 7"),
        (X, {"lengths": jnp.array([1, 2])}, "needs integer lengths [3]"),
        (X, {"stream": True}, "has no stream: state = open_stream"),
    ],
    ids=["features", "one sequence", "too long", "too few lengths", "not opened"],
)
def test_bad_sequences_are_refused(x, options, message):
    assert message in _refused(rnn(CELLS["lstm"]()), x, **options)


def test_what_cannot_be_is_refused():
    assert "cannot stream" in _refused(rnn(CELLS["lstm"](), reverse=True), X, stream=True)
    with pytest.raises(ValueError, match=r"takes 5 features, lstm_cell\(3, 4\) below it gives 4"):
        stacked(lstm_cell(3, 4), gru_cell(5, 2))
    with pytest.raises(ValueError, match="stacked needs cells"):
        stacked()
    with pytest.raises(ValueError, match="needs radii 0 < low < high < 1"):
        lru_cell(1, 2, 3, radius=(0.9, 1.1))
