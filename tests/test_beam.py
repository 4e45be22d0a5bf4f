"""Beam search against all continuations tried out."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import purenets as pn
from purenets.beam import beam_search
from purenets.generate import generate
from purenets.layers.cells import gru_cell
from purenets.layers.recurrent import rnn
from purenets.models.gpt import gpt
from tests.layers.peers import randomised

SIZE, STEPS = 3, 4
PROMPT = jnp.array([[0, 2], [1, 1]])
MODELS = {
    "gpt": lambda: gpt(SIZE, 8, 2, depth=2, context=8),
    "gru": lambda: pn.serial(pn.embedding(SIZE, 8), rnn(gru_cell(8, 8)), pn.dense(8, SIZE)),
}


def drawn(model):
    return jax.tree.map(lambda leaf: 0.5 * leaf, randomised(model.init(jax.random.key(0))[0]))


def tried_out(model, params, prompt, stop):
    """Every continuation of one prompt, cut after its stop token, by its log probability."""
    ways = np.array(list(itertools.product(range(SIZE), repeat=STEPS)))
    rows = jnp.concatenate([jnp.tile(prompt, (len(ways), 1)), jnp.asarray(ways)], 1)
    logits = np.asarray(jax.jit(model.apply)(params, {}, rows)[0], float)[:, len(prompt) - 1 : -1]
    logits -= np.log(np.exp(logits).sum(-1, keepdims=True))
    gains = np.take_along_axis(logits, ways[..., None], -1)[..., 0]
    scores = {}
    for way, gain in zip(ways, gains, strict=True):
        ends = [i for i, token in enumerate(way) if token in stop]
        length = ends[0] + 1 if ends else STEPS
        scores[tuple(int(token) for token in way[:length])] = gain[:length].sum()
    return sorted(scores.items(), key=lambda item: -item[1])


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("stop", [(), (1,)], ids=["to the end", "stop token"])
def test_with_beams_for_all_continuations_the_search_is_exact(name, stop):
    model = MODELS[name]()
    params = drawn(model)
    # Three steps of three tokens are 27 continuations: none is lost before the last.
    found = beam_search(model, params, {}, PROMPT, steps=STEPS, beams=27, stop=stop, pad=2)
    for row, prompt in enumerate(PROMPT):
        expected = tried_out(model, params, prompt, stop)[:27]
        np.testing.assert_allclose(found.scores[row], [score for _, score in expected], rtol=1e-4, atol=1e-5)
        best = expected[0][0]
        np.testing.assert_array_equal(found.tokens[row, 0], [*best, *[2] * (STEPS - len(best))])
        assert found.lengths[row, 0] == len(best)
        assert len({tuple(tokens.tolist()) for tokens in found.tokens[row]}) == 27


def test_one_beam_is_the_likeliest_token_at_each_step():
    model = MODELS["gpt"]()
    params = drawn(model)
    found = beam_search(model, params, {}, PROMPT, steps=STEPS, beams=1)
    np.testing.assert_array_equal(found.tokens[:, 0], generate(model, params, {}, PROMPT, steps=STEPS).tokens)


def test_beams_that_find_no_continuation_have_probability_zero():
    model = MODELS["gru"]()
    found = beam_search(model, drawn(model), {}, PROMPT, steps=1, beams=5)
    assert np.isfinite(found.scores[:, :3]).all()
    assert (found.scores[:, 3:] == -np.inf).all()


def test_prompts_of_different_lengths_are_searched_as_if_alone():
    model = MODELS["gpt"]()
    params = drawn(model)
    together = beam_search(model, params, {}, PROMPT, steps=STEPS, beams=2, lengths=jnp.array([2, 1]))
    alone = beam_search(model, params, {}, PROMPT[1:, :1], steps=STEPS, beams=2)
    np.testing.assert_array_equal(together.tokens[1], alone.tokens[0])
    np.testing.assert_allclose(together.scores[1], alone.scores[0], rtol=1e-5)


def test_nan_gives_no_tokens():
    model = MODELS["gru"]()
    params = jax.tree.map(lambda leaf: leaf * jnp.nan, drawn(model))
    found = beam_search(model, params, {}, PROMPT, steps=2, beams=2)
    assert np.isnan(found.scores).all()
    assert (found.tokens == -1).all()


def test_no_beams_are_refused():
    with pytest.raises(ValueError, match="beam_search needs at least one beam, got 0"):
        beam_search(MODELS["gru"](), {}, {}, PROMPT, steps=1, beams=0)
