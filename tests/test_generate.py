"""Generation: token for token what running the model over the whole sequence at each step gives."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import purenets as pn
from purenets.generate import _generate, generate
from purenets.layers.cells import lstm_cell
from purenets.layers.linear_attention import linear_attention
from purenets.layers.positions import learned_positions
from purenets.layers.recurrent import rnn
from purenets.models.gpt import gpt, llama
from purenets.models.transformer import encoder_decoder, language_model
from purenets.models.transformer_block import feed_forward, transformer_block
from purenets.sampling import choose
from tests.layers.peers import randomised

SIZE, STEPS = 11, 8
PROMPT = jnp.array([[3, 1, 4, 1], [5, 9, 2, 6]])
LENGTHS = jnp.array([4, 2])


def linear_model():
    block = transformer_block(8, linear_attention(8, 2, causal=True), feed_forward(8, 16))
    positions, head = learned_positions(16, 8), pn.dense(8, SIZE)
    return language_model(pn.embedding(SIZE, 8), pn.repeat(block, 2), positions=positions, head=head)


MODELS = {
    "gpt": lambda: gpt(SIZE, 8, 2, depth=2, context=16),
    "llama": lambda: llama(SIZE, 8, 4, depth=2, hidden=12, kv_heads=2),
    "linear": linear_model,
    "lstm": lambda: pn.serial(pn.embedding(SIZE, 8), rnn(lstm_cell(8, 8)), pn.dense(8, SIZE)),
}


SCALES = {"bias": 0.1, "scale": 1.0, "embedding": 0.3}


# Seeds of params with which the likeliest tokens vary, so that what is forgotten shows.
SEEDS = {"gpt": 2, "llama": 0, "linear": 24, "lstm": 13}


def drawn(model, name=None):
    params = randomised(model.init(jax.random.key(0))[0], SEEDS.get(name, 1))
    return jax.tree.map_with_path(lambda path, x: SCALES.get(path[-1].key, 0.9) * x, params)


def again(model, params, prompt, steps, side=None, **how):
    """The whole sequence through the model at each step: sequences ``[batch, time]`` of one length."""
    tokens, key = prompt, how.pop("key", None)
    apply = jax.jit(partial(model.apply, **(side or {})))
    # One shape for all steps: what comes later is not seen.
    room = jnp.zeros((prompt.shape[0], steps), prompt.dtype)
    for i in range(steps):
        logits, _ = apply(params, {}, jnp.concatenate([tokens, room[:, i:]], 1))
        now = {} if key is None else {"key": jax.random.fold_in(key, i), **how}
        token = choose(logits[:, tokens.shape[1] - 1], **now)
        tokens = jnp.concatenate([tokens, token[:, None]], 1)
    return tokens[:, prompt.shape[1] :]


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize(
    "how", [{}, {"temperature": 1.5, "top_k": 7, "top_p": 0.95}], ids=["greedy", "drawn"]
)
def test_generating_is_running_the_whole_prefix_again_at_each_step(name, how):
    model = MODELS[name]()
    params = drawn(model, name)
    found = generate(model, params, {}, PROMPT, steps=STEPS, key=jax.random.key(3) if how else None, **how)
    naive = again(model, params, PROMPT, STEPS, **({"key": jax.random.key(3), **how} if how else {}))
    np.testing.assert_array_equal(found.tokens, naive)
    np.testing.assert_array_equal(found.lengths, [STEPS, STEPS])
    assert len(np.unique(naive)) > 3


@pytest.mark.parametrize("name", MODELS)
def test_prompts_of_different_lengths_are_continued_as_if_alone(name):
    model = MODELS[name]()
    params = drawn(model, name)
    # What stands after a prompt is of no account, even where it is no id at all.
    prompt = PROMPT.at[1, 2:].set(-5)
    found = generate(model, params, {}, prompt, steps=STEPS, lengths=LENGTHS).tokens
    for row, length in enumerate(LENGTHS):
        alone = again(model, params, PROMPT[row : row + 1, :length], STEPS)
        np.testing.assert_array_equal(found[row], alone[0])


@pytest.mark.parametrize("first", [1, 2], ids=["one token", "two tokens"])
def test_a_decoder_goes_on_from_a_memory_that_was_encoded_once(first):
    model = encoder_decoder(7, SIZE, 8, 2, depth=2)
    params, source = drawn(model), jnp.array([[1, 2, 3, 4, 5, 6, 0, 1, 2, 3], [4, 4, 1, 0, 0, 0, 0, 0, 0, 0]])
    lengths = jnp.array([10, 3])
    memory, _ = model.parts["encoder"].apply(params["encoder"], {}, source, lengths=lengths)
    side = {"memory": memory, "memory_lengths": lengths}
    begin = PROMPT[:, :first]
    found = generate(model.parts["decoder"], params["decoder"], {}, begin, steps=STEPS, side=side).tokens
    whole = jax.jit(lambda tokens: model.apply(params, {}, source, tokens, source_lengths=lengths)[0])
    tokens = jnp.zeros((2, first + STEPS), int).at[:, :first].set(begin)
    for i in range(first, first + STEPS):
        tokens = tokens.at[:, i].set(jnp.argmax(whole(tokens)[:, i - 1], -1))
    np.testing.assert_array_equal(found, tokens[:, first:])


def counter():
    """A model whose next token is the last one plus 1, whatever else there is."""

    def count(_params, state, tokens, *, stream):
        return 10.0 * jax.nn.one_hot((tokens + 1) % SIZE, SIZE), state

    return pn.layer(None, count, memory=lambda batch, length: {"batch": jnp.zeros(batch)})


def test_a_sequence_ends_with_its_stop_token_and_is_padded():
    found = generate(counter(), {}, {}, jnp.array([[1], [5], [7]]), steps=5, stop=(8, 4), pad=9)
    np.testing.assert_array_equal(found.tokens, [[2, 3, 4, 9, 9], [6, 7, 8, 9, 9], [8, 9, 9, 9, 9]])
    np.testing.assert_array_equal(found.lengths, [3, 3, 1])


def test_settings_that_may_be_traced_do_not_compile_again():
    model = MODELS["gpt"]()
    params = drawn(model)
    run = partial(generate, model, params, {}, steps=2)
    run(PROMPT, key=jax.random.key(0), temperature=0.7, top_p=0.9)
    before = _generate._cache_size()
    other = run(PROMPT + 1, key=jax.random.key(1), temperature=1.3, top_p=0.5)
    assert _generate._cache_size() == before
    under_jit = jax.jit(lambda prompt, t: run(prompt, key=jax.random.key(1), temperature=t, top_p=0.5))
    np.testing.assert_array_equal(under_jit(PROMPT + 1, 1.3).tokens, other.tokens)


def test_what_is_only_known_at_run_time_gives_no_token():
    model = MODELS["gpt"]()
    params = drawn(model)
    found = jax.jit(lambda prompt: generate(model, params, {}, prompt, steps=3).tokens)(
        PROMPT.at[0, 1].set(SIZE)
    )
    np.testing.assert_array_equal(found[0], [-1, -1, -1])
    assert (found[1] >= 0).all()


ERRORS = {
    "an id that does not exist": (
        {"prompt": PROMPT.at[1, 0].set(SIZE)},
        r"has the ids 0 to 10, got 11 in the prompt",
    ),
    "a negative id": ({"prompt": -PROMPT}, r"has the ids 0 to 10, got -3 in the prompt"),
    "text as numbers": (
        {"prompt": jnp.ones((2, 4))},
        r"needs prompts as integer ids \[batch, time\], got float32",
    ),
    "no batch": ({"prompt": PROMPT[0]}, r"needs prompts as integer ids \[batch, time\], got int32\[4\]"),
    "nothing": ({"prompt": PROMPT[:, :0]}, "needs a prompt of at least one id and one step, got 0 and 8"),
    "beyond the context": (
        {"steps": 14},
        r"learned_positions\(16, 8\) has 16 positions, got a sequence of 17",
    ),
    "lengths of others": ({"lengths": jnp.array([4])}, r"needs integer lengths \[2\], got int32\[1\]"),
    "lengths beyond time": (
        {"lengths": jnp.array([4, 5])},
        "has prompts of 1 to 4 ids, got lengths from 4 to 5",
    ),
    "an empty prompt": ({"lengths": jnp.array([4, 0])}, "has prompts of 1 to 4 ids, got lengths from 0 to 4"),
    "no key": ({"top_k": 3}, r"needs a key to draw with: generate\(..., key=jax.random.key\(0\)\)"),
    "no heat": (
        {"key": jax.random.key(0), "temperature": 0},
        "needs a temperature above 0, got 0: leave out the key",
    ),
    "no choice": ({"key": jax.random.key(0), "top_k": 0}, "needs a top_k of at least 1, got 0"),
    "no share": ({"key": jax.random.key(0), "top_p": 1.5}, "needs a top_p above 0 and at most 1, got 1.5"),
}


@pytest.mark.parametrize("wrong", ERRORS)
def test_wrong_requests_are_refused(wrong):
    given, text = ERRORS[wrong]
    model = MODELS["gpt"]()
    params = jax.eval_shape(model.init, jax.random.key(0))[0]
    with pytest.raises(ValueError, match=text):
        generate(model, params, {}, **{"prompt": PROMPT, "steps": STEPS, **given})


def test_a_model_that_cannot_go_on_is_refused():
    memoryless = pn.serial(pn.embedding(SIZE, 8), pn.dense(8, SIZE))
    with pytest.raises(ValueError, match="serial has no memory over time and cannot go on from a prompt"):
        generate(memoryless, {}, {}, PROMPT, steps=1)
    with pytest.raises(ValueError, match="does not take lengths: give prompts of one length together"):
        generate(counter(), {}, {}, PROMPT, steps=1, lengths=LENGTHS)
