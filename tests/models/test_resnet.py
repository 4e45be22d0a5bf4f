"""Residual networks: published sizes, and the identities of residual blocks and of their shortcuts."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import purenets as pn
from purenets import initializers, models
from purenets.models import conv_join, dropout_join, gated_join, plain_join, scaled_join, sum_join
from tests.layers.peers import assert_trees_close, normal, randomised
from tests.models.counting import count, shapes, weight_layers

EVERY_JOIN = {
    "identity": sum_join,
    "plain": plain_join,
    "half": scaled_join(),
    "exclusive gate": gated_join(exclusive=True),
    "shortcut gate": gated_join(exclusive=False),
    "convolution": conv_join,
    "dropout": dropout_join(),
}


@pytest.mark.covers("M48")
@pytest.mark.parametrize(
    ("depth", "expected"), [(20, 269_722), (32, 464_154), (44, 658_586), (56, 853_018), (110, 1_727_962)]
)
def test_the_networks_for_small_images_have_the_published_sizes(depth, expected):
    """He et al. 2016a, table 6: 0.27, 0.46, 0.66, 0.85 and 1.7 million."""
    assert count(models.resnet_cifar(depth, scan=False)) == expected
    assert count(models.resnet_cifar(depth, scan=True)) == expected


@pytest.mark.covers("M48")
@pytest.mark.parametrize("pre_activation", [False, True], ids=["post", "pre"])
@pytest.mark.parametrize("depth", [20, 56, 110])
def test_the_name_of_a_network_is_how_many_layers_it_has_and_its_plain_twin_has_the_same(
    depth, pre_activation
):
    net = models.resnet_cifar(depth, scan=False, pre_activation=pre_activation)
    plain = models.resnet_cifar(depth, scan=False, pre_activation=pre_activation, join=plain_join)
    assert weight_layers(net) == weight_layers(plain) == depth
    assert sorted(shapes(plain).values()) == sorted(shapes(net).values())


@pytest.mark.covers("M48")
@pytest.mark.parametrize(
    ("blocks", "bottleneck", "expected", "depth"),
    [
        ((2, 2, 2, 2), False, 11_689_512, 18),
        ((3, 4, 6, 3), False, 21_797_672, 34),
        ((3, 4, 6, 3), True, 25_557_032, 50),
        ((3, 4, 23, 3), True, 44_549_160, 101),
        ((3, 8, 36, 3), True, 60_192_808, 152),
    ],
    ids=["18", "34", "50", "101", "152"],
)
def test_the_networks_for_large_images_have_the_sizes_of_torchvision(blocks, bottleneck, expected, depth):
    net = models.resnet(blocks, bottleneck=bottleneck, scan=False)
    assert count(net) == expected
    projections = sum("skip" in path and path.endswith("kernel") for path in shapes(net))
    assert weight_layers(net) - projections == depth


def test_only_stages_of_five_equal_blocks_and_more_become_loops_by_default():
    looped = {
        depth: {p.split("/")[1] for p in shapes(models.resnet_cifar(depth)) if "stage_1" in p}
        for depth in (32, 38)
    }
    assert looped == {32: {"first", *(f"block_{i}" for i in range(2, 6))}, 38: {"first", "rest"}}


def test_shapes_are_halved_from_stage_to_stage():
    net = models.resnet(scan=True)
    trunk = pn.serial(**{name: part for name, part in net.parts.items() if name not in ("mean", "head")})
    assert pn.out_shape(trunk, 2, 224, 224, 3) == (2, 7, 7, 2048)
    assert pn.out_shape(net, 2, 224, 224, 3) == (2, 1000)
    small = models.resnet_cifar(20, scan=True)
    trunk = pn.serial(**{name: part for name, part in small.parts.items() if name not in ("pool", "head")})
    assert pn.out_shape(trunk, 2, 32, 32, 3) == (2, 8, 8, 64)


@pytest.mark.covers("M48", "M49", "M50", "M51", "M52")
@pytest.mark.parametrize("name", EVERY_JOIN)
@pytest.mark.parametrize("pre_activation", [False, True], ids=["post", "pre"])
def test_every_shortcut_makes_a_network_that_fits_together(name, pre_activation):
    net = models.resnet_cifar(14, width=4, join=EVERY_JOIN[name], pre_activation=pre_activation, scan=True)
    assert pn.out_shape(net, 2, 8, 8, 3) == (2, 10)


@pytest.mark.parametrize("depth", [19, 21, 2, 0])
def test_other_depths_are_refused(depth):
    with pytest.raises(ValueError, match=rf"needs a depth of 6 n \+ 2 \(20, 32, 56, 110, ...\), got {depth}"):
        models.resnet_cifar(depth)


@pytest.mark.covers("M48")
def test_equal_blocks_under_repeat_are_the_blocks_one_after_another():
    scanned = models.resnet_cifar(20, width=2, scan=True)
    plain = models.resnet_cifar(20, width=2, scan=False)
    x = normal(4, 8, 8, 3)

    def unrolled(tree):
        out = dict(tree)
        for stage in ("stage_1", "stage_2", "stage_3"):
            rest = tree[stage]["rest"]
            members = {f"block_{i + 2}": jax.tree.map(lambda leaf, i=i: leaf[i], rest) for i in range(2)}
            out[stage] = {"first": tree[stage]["first"], **members}
        return out

    params, state = jax.eval_shape(scanned.init, jax.random.key(0))
    params, state = randomised(params), jax.tree.map(lambda leaf: jnp.ones(leaf.shape), state)

    @jax.jit
    def both(params, state):
        found, after = scanned.apply(params, state, x, train=True)
        expected = plain.apply(unrolled(params), unrolled(state), x, train=True)
        return (found, unrolled(after)), expected

    assert_trees_close(*both(params, state), rtol=1e-3, atol=1e-4)


def zeros(model):
    return jax.tree.map(lambda leaf: jnp.zeros(leaf.shape), jax.eval_shape(model.init, jax.random.key(0)))


@pytest.mark.covers("M47", "N08")
@pytest.mark.parametrize("pre_activation", [False, True], ids=["post", "pre"])
def test_a_block_with_a_zero_branch_is_the_identity_with_unit_jacobian(pre_activation):
    block = pn.residual(models.basic_block(2, 2, pre_activation=pre_activation))
    params, state = zeros(block)
    x = normal(1, 3, 3, 2)
    out, jacobian = jax.jit(
        lambda x: (lambda f: (f(x), jax.jacrev(f)(x)))(lambda x: block.apply(params, state, x)[0])
    )(x)
    np.testing.assert_array_equal(out, x)
    np.testing.assert_array_equal(jacobian.reshape(18, 18), np.eye(18))


def chain(join, n, dim=3):
    """Blocks of a tanh layer under one kind of shortcut, and their params and bodies."""
    body = pn.serial(dense=pn.dense(dim, dim), tanh=jnp.tanh)
    block = join(body, pn.identity, dim)
    net = pn.serial(**{f"block_{i}": block for i in range(n)})
    params = randomised(jax.eval_shape(net.init, jax.random.key(0))[0])

    def branches(x):
        """The output of every branch, and the output of the whole."""
        found = []
        for i in range(n):
            own = params[f"block_{i}"]
            found.append(body.apply(own.get("body", own), {}, x)[0])
            x, _ = block.apply(own, {}, x)
        return found, x

    return net, params, branches


@pytest.mark.covers("M46")
def test_in_a_plain_linear_chain_the_gradient_is_the_product_of_the_kernels(x64):
    n = 7
    net = pn.serial(*[pn.dense(3, 3, bias=False) for _ in range(n)])
    params = randomised(jax.eval_shape(net.init, jax.random.key(0))[0])
    params = jax.tree.map(lambda leaf: leaf.astype(jnp.float64), params)
    x, slope = normal(3, dtype=jnp.float64), normal(3, seed=2, dtype=jnp.float64)
    out, back = jax.vjp(lambda x: net.apply(params, {}, x)[0], x)
    product = np.eye(3)
    for i in range(1, n + 1):
        product = product @ np.asarray(params[f"dense_{i}"]["kernel"])
    np.testing.assert_allclose(out, x @ product, rtol=1e-12)
    np.testing.assert_allclose(back(slope)[0], product @ slope, rtol=1e-12)


@pytest.mark.covers("M47", "N08")
def test_a_residual_chain_is_its_input_plus_the_sum_of_its_branches(x64):
    net, params, branches = chain(sum_join, 6)
    x = normal(3, dtype=jnp.float64)
    parts, whole = branches(x)
    np.testing.assert_allclose(net.apply(params, {}, x)[0], x + sum(parts), rtol=1e-6)
    np.testing.assert_allclose(whole, x + sum(parts), rtol=1e-6)
    # The gradient is that of the input plus that of the sum: the identity is always part of it.
    slope = jax.jacrev(lambda x: net.apply(params, {}, x)[0])(x)
    through = jax.jacrev(lambda x: sum(branches(x)[0]))(x)
    np.testing.assert_allclose(slope, np.eye(3) + through, rtol=1e-6, atol=1e-9)


@pytest.mark.covers("M49", "DEC-12")
@pytest.mark.parametrize(("factor", "body_factor"), [(0.5, 1.0), (0.9, 1.0), (0.5, 0.5)], ids=str)
def test_a_scaled_chain_is_the_power_of_its_factor_plus_scaled_branches(x64, factor, body_factor):
    n = 6
    net, params, branches = chain(scaled_join(factor, body_factor), n)
    x = normal(3, dtype=jnp.float64)

    def absorbed(x):
        parts, _ = branches(x)
        return sum(factor ** (n - 1 - i) * body_factor * part for i, part in enumerate(parts))

    np.testing.assert_allclose(net.apply(params, {}, x)[0], factor**n * x + absorbed(x), rtol=1e-6)
    slope = jax.jacrev(lambda x: net.apply(params, {}, x)[0])(x)
    np.testing.assert_allclose(slope, factor**n * np.eye(3) + jax.jacrev(absorbed)(x), rtol=1e-6, atol=1e-9)


@pytest.mark.covers("M49")
@pytest.mark.parametrize(("blocks", "printed"), [(54, "5.6e-17"), (110, "7.7e-34")])
def test_through_halved_shortcuts_the_gradient_decays_by_the_printed_powers(blocks, printed):
    body = pn.dense(2, 2)
    net = pn.repeat(scaled_join(0.5, 1.0)(body, pn.identity, 2), blocks)
    params, _ = zeros(net)
    slope = jax.grad(lambda x: net.apply(params, {}, x)[0][0])(jnp.ones(2))
    assert f"{slope[0]:.1e}" == printed
    kept = pn.repeat(pn.residual(body), blocks)
    assert jax.grad(lambda x: kept.apply(*zeros(kept), x)[0][0])(jnp.ones(2))[0] == 1


def joined(join, x, channels=2, **keywords):
    """The output of one block, its branch, and its params."""
    body = pn.conv(channels, channels, 3)
    block = join(body, pn.identity, channels)
    params = randomised(jax.eval_shape(block.init, jax.random.key(0))[0])
    branch = body.apply(params["body"], {}, x)[0]
    return np.asarray(block.apply(params, {}, x, **keywords)[0]), np.asarray(branch), params


@pytest.mark.covers("M50")
def test_a_convolution_shortcut_is_a_matrix_on_the_channels():
    x = normal(2, 4, 4, 2)
    out, branch, params = joined(conv_join, x)
    (kernel,) = [leaf for path, leaf in pn.paths.flatten(params["skip"]).items() if path.endswith("kernel")]
    np.testing.assert_allclose(out, branch + np.asarray(x) @ np.asarray(kernel)[0, 0], rtol=1e-4, atol=1e-5)


@pytest.mark.covers("M51", "N09")
def test_a_dropout_shortcut_keeps_values_unscaled_and_half_of_them_on_average():
    x = normal(4, 16, 16, 2)
    out, branch, _ = joined(dropout_join(0.5), x, key=jax.random.key(0), train=True)
    mask = (out - branch) / np.asarray(x)
    clear = np.abs(x) > 0.05
    np.testing.assert_allclose(mask[clear], np.round(mask[clear]), atol=1e-3)
    assert set(np.round(mask[clear]).tolist()) == {0.0, 1.0}
    assert abs(np.round(mask[clear]).mean() - 0.5) < 4 * 0.5 / np.sqrt(clear.sum())
    evaluated, branch, _ = joined(dropout_join(0.5), x)
    np.testing.assert_allclose(evaluated, branch + 0.5 * np.asarray(x), rtol=1e-4, atol=1e-5)


@pytest.mark.covers("M52")
@pytest.mark.parametrize("exclusive", [True, False], ids=["exclusive", "shortcut only"])
def test_a_gate_is_a_sigmoid_of_a_1_by_1_convolution(exclusive):
    x = normal(2, 4, 4, 2)
    out, branch, params = joined(gated_join(exclusive=exclusive), x)
    scores = np.asarray(x) @ np.asarray(params["gate"]["kernel"])[0, 0] + np.asarray(params["gate"]["bias"])
    gate = 1 / (1 + np.exp(-scores))
    expected = (gate if exclusive else 1) * branch + (1 - gate) * np.asarray(x)
    np.testing.assert_allclose(out, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.covers("M52")
def test_a_gate_begins_with_its_bias_and_so_with_the_shortcut():
    block = gated_join(exclusive=True)(pn.identity, pn.identity, 2)
    params, _ = block.init(jax.random.key(0))
    np.testing.assert_array_equal(params["gate"]["bias"], [-6, -6])


def test_shortcuts_by_padding_and_by_projection_have_the_shape_of_the_body():
    for stride, n_out in ((1, 4), (2, 4), (2, 8)):
        for shortcut in (models.shortcut_by_padding, models.shortcut_by_projection):
            for body in (models.basic_block, models.bottleneck_block):
                block = pn.residual(body(4, n_out, stride), shortcut(4, n_out, stride))
                assert pn.out_shape(block, 2, 7, 7, 4) == (2, -(-7 // stride), -(-7 // stride), n_out)
    x = normal(1, 5, 5, 2)
    y, _ = models.shortcut_by_padding(2, 4, 2).apply({}, {}, x)
    np.testing.assert_array_equal(y[..., :2], x[:, ::2, ::2])
    assert not y[..., 2:].any()
    assert models.shortcut_by_padding(4, 4, 1) is pn.identity
    assert models.shortcut_by_projection(4, 4, 1) is pn.identity


@pytest.mark.covers("M48")
@pytest.mark.parametrize(
    ("depth", "widen", "expected"),
    [(16, 4, 2_748_890), (40, 2, 2_243_546), (16, 8, 10_961_370), (28, 10, 36_479_194)],
)
def test_wide_networks_have_the_published_sizes(depth, widen, expected):
    """Zagoruyko & Komodakis 2016, table 4: 2.7, 2.2, 11.0 and 36.5 million."""
    net = models.wide_resnet(depth, widen)
    assert count(net) == expected
    projections = sum("skip" in path for path in shapes(net))
    # Their names count all convolutions, the three of the shortcuts too, and not the dense layer.
    assert (projections, weight_layers(net)) == (3, depth + 1)
    assert pn.out_shape(net, 2, 32, 32, 3) == (2, 10)


def test_other_depths_of_wide_networks_are_refused():
    with pytest.raises(ValueError, match=r"wide_resnet needs a depth of 6 n \+ 4 .*, got 20"):
        models.wide_resnet(20, 2)


def test_convnext_has_the_published_size_and_its_block_begins_near_the_identity():
    """Liu et al. 2022, table 1: 28.6 million."""
    assert count(models.convnext()) == 28_589_128
    assert pn.out_shape(models.convnext(rate=0.1), 2, 224, 224, 3) == (2, 1000)
    block = models.convnext_block(4, layer_scale=0.0)
    params, state = block.init(jax.random.key(0))
    x = normal(1, 5, 5, 4)
    np.testing.assert_array_equal(block.apply(params, state, x)[0], x)
    with pytest.raises(ValueError, match=r"a dim for each stage, got \(1, 1\) and \(8,\)"):
        models.convnext((1, 1), (8,))


def relu_net():
    return pn.serial(conv=pn.conv(1, 3, 3), relu=jax.nn.relu, flatten=pn.flatten(), hidden=pn.dense(48, 5),
                     relu_2=jax.nn.relu, head=pn.dense(5, 2))  # fmt: skip


@pytest.mark.covers("M53")
@pytest.mark.parametrize("after", ["relu", "relu_2"])
def test_a_network_deepened_by_identities_computes_the_same_to_the_bit(after):
    net = relu_net()
    params, state = net.init(jax.random.key(0))
    made = {
        "relu": lambda: pn.conv(3, 3, 3, kernel_init=initializers.identity()),
        "relu_2": lambda: pn.dense(5, 5, kernel_init=initializers.identity()),
    }[after]
    extra = {
        f"{kind}_{i}x": part for i in range(4) for kind, part in (("copy", made()), ("relu", jax.nn.relu))
    }
    deep, deep_params, deep_state = models.deepen(
        net, params, state, extra, after=after, key=jax.random.key(1)
    )
    assert weight_layers(deep) == weight_layers(net) + 4
    x = normal(3, 4, 4, 1)
    np.testing.assert_array_equal(deep.apply(deep_params, deep_state, x)[0], net.apply(params, state, x)[0])
    # The copies can be trained: the gradient of every new kernel is there.
    slope = jax.grad(lambda p: jnp.sum(jnp.square(deep.apply(p, deep_state, x)[0])))(deep_params)
    assert all((slope[name]["kernel"] != 0).any() for name in extra if name.startswith("copy"))


@pytest.mark.covers("M53")
def test_zero_branches_deepen_a_network_of_any_activation_and_identity_layers_do_not():
    net = pn.serial(first=pn.dense(3, 4), sigmoid=jax.nn.sigmoid, head=pn.dense(4, 2))
    params, state = net.init(jax.random.key(0))
    x = normal(5, 3)
    shallow, _ = net.apply(params, state, x)
    block = pn.residual(
        pn.serial(pn.dense(4, 4), jnp.tanh, last=pn.dense(4, 4, kernel_init=initializers.zeros))
    )
    deep = models.deepen(net, params, state, {"block": block}, after="sigmoid", key=jax.random.key(1))
    np.testing.assert_array_equal(deep[0].apply(*deep[1:], x)[0], shallow)
    # Negative control: an identity kernel with a sigmoid behind it is not the identity.
    wrong = {"copy": pn.dense(4, 4, kernel_init=initializers.identity()), "squash": jax.nn.sigmoid}
    other = models.deepen(net, params, state, wrong, after="sigmoid", key=jax.random.key(1))
    assert not np.allclose(other[0].apply(*other[1:], x)[0], shallow, atol=1e-2)


def test_deepening_keeps_statistics_and_says_what_is_wrong():
    net = pn.serial(first=pn.dense(3, 4), norm=pn.batch_norm(4), head=pn.dense(4, 2))
    params, state = net.init(jax.random.key(0))
    key = jax.random.key(1)
    deep, _, deep_state = models.deepen(
        net, params, state, {"norm_2": pn.batch_norm(4)}, after="norm", key=key
    )
    assert list(deep.parts) == ["first", "norm", "norm_2", "head"]
    assert sorted(deep_state) == ["norm", "norm_2"]
    with pytest.raises(ValueError, match=r"no part 'tail'; its parts are \['first', 'norm', 'head'\]"):
        models.deepen(net, params, state, {"x": jnp.tanh}, after="tail", key=key)
    with pytest.raises(ValueError, match=r"parts called \['norm'\] already"):
        models.deepen(net, params, state, {"norm": jnp.tanh}, after="head", key=key)
    with pytest.raises(ValueError, match=r"a model made by serial, got dense\(3, 4\)"):
        models.deepen(pn.dense(3, 4), {}, {}, {"x": jnp.tanh}, after="head", key=key)
