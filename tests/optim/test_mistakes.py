"""What a first-order optimizer is wrongly given, and the sentence that it answers."""

import inspect
import re
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from purenets import optim
from tests.optim.every import EVERY, build

CONTRIB = (
    "acprop", "ademamix", "simplified_ademamix", "adopt", "cocob", "dadapt_adamw", "dog", "dowg", "galore",
    "madgrad", "momo", "momo_adam", "muon", "prodigy", "schedule_free_adamw", "schedule_free_sgd", "soap",
    "sophia",
)  # fmt: skip
RATELESS = ("normalize", "reduce_on_plateau")
PARAMS = {"dense": {"kernel": jnp.ones((3, 4)), "bias": jnp.ones(4)}}
RATED = {
    name: getattr(optim, name, None) or getattr(optim.contrib, name)
    for name in [*EVERY, "rprop", "lbfgs", *CONTRIB]
    if "learning_rate"
    in inspect.signature(getattr(optim, name, None) or getattr(optim.contrib, name)).parameters
}


def given(**leaves):
    """The gradients of ``PARAMS`` with some leaves replaced; None leaves one out."""
    dense = {"kernel": jnp.ones((3, 4)), "bias": jnp.ones(4)} | leaves
    return {"dense": {name: leaf for name, leaf in dense.items() if leaf is not None}}


def cosh(params):
    return sum(jnp.sum(jnp.cosh(leaf)) for leaf in jax.tree.leaves(params))


def refused(message, name, gradients, params=PARAMS, **arguments):
    optimizer = getattr(optim, name)(**arguments)
    with pytest.raises(ValueError, match=re.escape(message)):
        optimizer.update(gradients, optimizer.init(PARAMS), params)


def test_a_missing_leaf_is_named():
    message = (
        "scale_by_adam: the updates and the state are not the same tree: 'dense/bias' is a leaf of the state"
    )
    refused(message, "adam", given(bias=None), learning_rate=0.1)


def test_a_leaf_too_many_is_named_and_init_is_suspected():
    gradients = given() | {"new": jnp.ones(2)}
    message = (
        "trace: the updates and the state are not the same tree: 'new' is a leaf of the updates only; was the"
    )
    refused(message, "sgd", gradients, learning_rate=0.1, momentum=0.9)


def test_other_containers_are_told_apart():
    gradients = {"dense": [jnp.ones(4), jnp.ones((3, 4))]}
    refused("'dense/0' is a leaf of the updates only", "adam", gradients, learning_rate=0.1)


def test_a_wrong_shape_is_named_even_where_it_would_broadcast():
    message = "scale_by_adam: 'dense/kernel' is float32[3, 1] in the updates and float32[3, 4] in the state"
    refused(message, "adam", given(kernel=jnp.ones((3, 1))), learning_rate=0.1)
    message = (
        "add_decayed_weights: 'dense/bias' is float32[1] in the updates and float32[4] in the parameters"
    )
    refused(message, "add_decayed_weights", given(bias=jnp.ones(1)), weight_decay=0.1)


def test_integer_leaves_are_named_with_what_to_do():
    message = "scale_by_adam: 'dense/bias' is int32[4], and only floating point leaves can be optimized; keep"
    refused(message, "adam", given(bias=jnp.ones(4, jnp.int32)), learning_rate=0.1)


WRONG = {
    "a leaf too few": (given(bias=None), "dense/bias"),
    "a leaf too many": (given(new=jnp.ones(2)), "dense/new"),
    "a shape that broadcasts": (given(kernel=jnp.ones((3, 1))), "dense/kernel"),
    "integers": (given(bias=jnp.ones(4, jnp.int32)), "dense/bias"),
}
# These look at nothing but the updates.
ALONE = {
    "add_noise", "adagrad_norm", "centralize", "clip", "clip_by_block_rms", "clip_by_global_norm", "noisy_sgd",
    "normalize", "normalize_by_update_norm", "normalize_gradient", "polyak_sgd", "reduce_on_plateau",
    "rmsprop_norm", "scale_by_polyak", "scale_by_sign", "sign_sgd",
}  # fmt: skip
WRAPPED = {
    "MultiSteps": lambda: optim.MultiSteps(optim.adam(0.1), 2).gradient_transformation(),
    "apply_if_finite": lambda: optim.apply_if_finite(optim.adam(0.1), 2),
    "groups": lambda: optim.groups({"**": optim.adam(0.1)}),
    "inject_hyperparams": lambda: optim.inject_hyperparams(optim.adam)(0.1),
    "mechanize": lambda: optim.contrib.mechanize(optim.adam(0.1)),
    "only": lambda: optim.only("**", optim.adam(0.1)),
    "sam": lambda: optim.contrib.sam(optim.sgd(0.1), optim.sgd(0.1)),
    "scale_by_lbfgs": optim.scale_by_lbfgs,
}
OPTIMIZERS = (
    {name: partial(build, optim, name, case.usual()) for name, case in EVERY.items()}
    | {name: getattr(optim.contrib, name) if name in RATELESS else partial(getattr(optim.contrib, name), 0.1)
       for name in (*CONTRIB, *RATELESS)}
    | WRAPPED
)  # fmt: skip


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore:Specifying a key")
@pytest.mark.parametrize("wrong", WRONG)
def test_every_optimizer_names_the_leaf_that_does_not_fit(wrong):
    gradients, path = WRONG[wrong]
    for name, make in OPTIMIZERS.items():
        if wrong != "integers" and (
            name in ALONE or (name, wrong[2:]) == ("zero_nans", "shape that broadcasts")
        ):
            continue
        optimizer = make()
        state = optimizer.init(PARAMS)
        with pytest.raises(ValueError, match=f"'{path}['/]"):  # noqa: PT012
            jax.eval_shape(
                lambda g, o=optimizer, s=state: o.update(g, s, PARAMS, value=jnp.float32(1), obj_fn=cosh),
                gradients,
            )
            pytest.fail(f"{name} takes {wrong}")


def test_a_flattened_optimizer_still_knows_the_leaves():
    for wrong, message in [
        ("integers", "flatten: 'dense/bias' is int32[4], and only floating"),
        ("a leaf too few", "flatten: the updates and the parameters are not the same tree: 'dense/bias' is"),
        ("a shape that broadcasts", "flatten: 'dense/kernel' is float32[3, 1] in the updates and"),
    ]:
        refused(message, "flatten", WRONG[wrong][0], inner=optim.adam(0.1))


def test_a_gradient_of_integers_is_named():
    params = {"scale": jnp.float32(1.0), "steps": jnp.int32(3)}
    gradients = jax.grad(lambda p: p["scale"] * 2.0, allow_int=True)(params)
    with pytest.raises(ValueError, match=r"scale_by_adam: 'steps' is .*float0.*only floating point leaves"):
        optim.adam(0.1).update(gradients, optim.adam(0.1).init(params))


NEED_PARAMS = [
    "adaptive_grad_clip",
    "add_decayed_weights",
    "keep_params_nonnegative",
    "scale_by_distance_over_gradients",
    "scale_by_factored_rms",
    "scale_by_novograd",
    "scale_by_param_block_norm",
    "scale_by_param_block_rms",
    "scale_by_trust_ratio",
]


@pytest.mark.parametrize("name", NEED_PARAMS)
def test_missing_parameters_are_asked_for(name):
    arguments = {"clipping": 0.1} if name == "adaptive_grad_clip" else {}
    refused(
        f"{name} needs the parameters: call update(gradients, state, params)",
        name,
        given(),
        None,
        **arguments,
    )


@pytest.mark.parametrize("rate", [-0.1, float("nan"), float("inf"), np.float32(-1)])
def test_a_rate_that_cannot_be_is_refused_by_every_factory(rate):
    """MoMo's rate is the bound of a step that the loss chooses, so it may be infinite; so may Polyak's."""
    message = r"learning_rate must be finite and not negative, got .*; updates already"
    assert {"adam", "momo", "dadapt_adamw", "lbfgs"} <= set(RATED)
    for name, factory in RATED.items():
        if name.startswith("momo") and np.isinf(rate):
            factory(learning_rate=rate)
            continue
        with pytest.raises(ValueError, match=message):
            factory(learning_rate=rate)
    for factory in (optim.polyak_sgd, optim.scale_by_polyak):
        if np.isinf(rate):
            factory(max_learning_rate=rate)
        else:
            with pytest.raises(ValueError, match="max_" + message):
                factory(max_learning_rate=rate)


@pytest.mark.parametrize(
    ("rate", "message"),
    [
        (True, "learning_rate must be a number or a schedule, got True"),
        ("0.1", "learning_rate must be a number or a schedule, got '0.1'"),
        (
            np.ones(3, np.float32),
            "learning_rate must be a scalar, got float32[3]; for several runs side by side vmap",
        ),
        (1j, "learning_rate must be real, got complex64[]"),
    ],
)
def test_a_rate_of_the_wrong_kind_is_refused(rate, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        optim.adam(rate)


def test_a_traced_rate_of_the_wrong_shape_is_refused_while_tracing():
    for factory in RATED.values():
        with pytest.raises(ValueError, match=r"learning_rate must be a scalar, got float32\[3\]"):
            jax.eval_shape(
                lambda rate, factory=factory: factory(learning_rate=rate).init(PARAMS), jnp.ones(3)
            )


def test_schedules_are_not_taken_where_the_rule_has_none():
    with pytest.raises(ValueError, match="optimistic_adam_v2 takes schedules"):
        optim.optimistic_adam(lambda count: 0.1)


def test_unknown_choices_list_the_known_ones():
    with pytest.raises(ValueError, match="the mode of lion is one of hard, smooth, refined, got 'soft'"):
        optim.scale_by_lion(mode="soft").update(given(), optim.scale_by_lion().init(PARAMS))
    with pytest.raises(ValueError, match=r"the variant of Polyak's step is 'sps' or 'sps\+', got 'max'"):
        optim.polyak_sgd(variant="max")
    with pytest.raises(ValueError, match="the form of momentum is 'A', 'B' or 'C', got 'D'"):
        optim.momentum(0.1, form="D")


def test_polyak_s_step_asks_for_the_loss():
    optimizer = optim.polyak_sgd()
    with pytest.raises(TypeError, match="needs the loss: call update"):
        optimizer.update(given(), optimizer.init(PARAMS), PARAMS)


def test_a_key_and_a_seed_are_one_too_many():
    for factory in (optim.add_noise, optim.differentially_private_aggregate):
        with pytest.raises(
            ValueError, match=f"{factory.__name__} takes a key or a seed, not both; got key=1 and seed=2"
        ):
            factory(0.1, 0.1, 1, seed=2)


@pytest.mark.parametrize("clip", ["per_example_global_norm_clip", "per_example_layer_norm_clip"])
def test_per_example_gradients_without_a_common_batch_are_listed(clip):
    gradients = {"a": jnp.ones((5, 2)), "b": jnp.ones(4), "c": jnp.ones(())}
    message = (
        f"{clip} needs gradients [batch, ...] with one batch for every leaf, as vmap(grad(loss)) gives them; "
    )
    with pytest.raises(ValueError, match=re.escape(message + "got a [5, 2], b [4], c []")):
        getattr(optim, clip)(gradients, 1.0)


def test_a_kernel_of_six_axes_needs_its_axes_named():
    gradient = jnp.ones((1, 2, 3, 2, 2, 2))
    optimizer = optim.adaptive_grad_clip(0.1)
    with pytest.raises(ValueError, match=r"up to five axes, got \[1, 2, 3, 2, 2, 2\]; pass axis="):
        optimizer.update(gradient, optim.EmptyState(), gradient)


@pytest.mark.covers("G15")
@pytest.mark.parametrize("how", ["eager", "jit", "scan", "vmap"])
def test_a_gradient_that_is_not_finite_is_named_wherever_it_is_met(how):
    optimizer = optim.chain(optim.error_if_not_finite(), optim.sgd(0.1))
    gradients = given(bias=jnp.array([1.0, jnp.nan, jnp.inf, 2.0]))
    state = optimizer.init(PARAMS)

    def step(state, g):
        return optimizer.update(g, state)[::-1]

    stacked = jax.tree.map(lambda g: jnp.stack([jnp.ones_like(g), g]), gradients)
    run = {
        "eager": lambda: step(state, gradients),
        "jit": lambda: jax.jit(step)(state, gradients),
        "scan": lambda: jax.jit(lambda gs: jax.lax.scan(step, state, gs))(stacked),
        "vmap": lambda: jax.vmap(lambda g: step(state, g)[1])(stacked),
    }[how]
    with pytest.raises((FloatingPointError, RuntimeError), match=r"updates of 'dense/bias' \(2 of 4\)\n?"):
        jax.block_until_ready(run())
    np.testing.assert_allclose(step(state, given())[1]["dense"]["bias"], -0.1)


def test_updates_of_another_shape_are_not_applied():
    with pytest.raises(
        ValueError, match=r"apply_updates: 'dense/bias' is float32\[1\] in the updates and float32\[4\]"
    ):
        optim.apply_updates(PARAMS, given(bias=jnp.ones(1)))


def test_counts_are_numbers():
    with pytest.raises(ValueError, match="a count is an integer or a float, got bool"):
        optim.safe_increment(jnp.array(True))
