"""The ways in which a course looks at data and learning, each on its own example."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.linear_model import LinearRegression

import purenets as pn
from purenets import data, losses, metrics, optim
from purenets.classic import perceptron, regression, unsupervised
from purenets.data.preprocess import standardise, standardiser

# Weight in grams, bumpy or smooth; an orange is 1 and an apple -1.
FRUIT = jnp.array([[150.0, 1], [170.0, 1], [140.0, 0], [130.0, 0]])
KIND = jnp.array([1, 1, -1, -1])


@pytest.mark.covers("D01")
@pytest.mark.parametrize("column", [0, 1], ids=["weight", "texture"])
def test_supervised_either_feature_alone_tells_the_fruit(column):
    x = standardise(standardiser(FRUIT), FRUIT)[:, column : column + 1]
    found = perceptron.fit_perceptron(x, KIND)
    np.testing.assert_array_equal(perceptron.decide(found.params, x), KIND)
    # The printed rule: from 145 g on it is an orange.
    np.testing.assert_array_equal(np.where(FRUIT[:, 0] >= 145, 1, -1), KIND)


@pytest.mark.covers("D02", "D06")
def test_unsupervised_the_groups_are_found_without_their_names():
    x, y = data.blobs(jax.random.key(0), 90, np.array([[0.0, 0], [8, 0], [0, 8]]), 0.5)
    found = unsupervised.fit_kmeans(x, 3, jax.random.key(1))
    pairs = {(int(a), int(b)) for a, b in zip(found.labels, y, strict=True)}
    assert len(pairs) == 3  # one group for each cluster and no other
    # The continuous counterpart: nearly all variance lies along fewer directions than there are features.
    line = jnp.linspace(-1, 1, 50)[:, None] * jnp.array([1.0, 2.0, -1.0])
    variance = unsupervised.fit_pca(
        line + 0.01 * jax.random.normal(jax.random.key(2), line.shape), 3
    ).variance
    assert float(variance[0] / variance.sum()) > 0.999


@pytest.mark.covers("D03")
def test_semi_supervised_a_code_from_all_examples_serves_a_classifier_from_a_few_labels():
    # The classes lie along the direction of most variance, which only many examples show.
    key, noise = jax.random.split(jax.random.key(0))
    y = (jnp.arange(400) % 2).astype(int)
    x = jnp.outer(2.0 * y - 1, jnp.ones(20)) + 1.5 * jax.random.normal(noise, (400, 20))
    few = jax.random.permutation(key, 400)[:8]
    code = unsupervised.fit_pca(x, 1).encode(x)
    share = {}
    for name, features in (("code of all", code), ("raw", x)):
        params = regression.fit_logistic(features[few], y[few].astype(float), penalty=1e-3)
        score = features @ params["kernel"] + params["bias"]
        share[name] = float(jnp.mean((score[:, 0] > 0) == y))
    assert share["code of all"] > 0.97
    assert share["code of all"] > share["raw"]


@pytest.mark.covers("D05")
def test_one_trunk_with_a_continuous_and_a_discrete_head_learns_both():
    @pn.compose(trunk=pn.dense(3, 16), amount=pn.dense(16, 1), kind=pn.dense(16, 4))
    def both(m, x):
        h = jnp.tanh(m.trunk(x))
        return m.amount(h)[:, 0], m.kind(h)

    params, state = both.init(jax.random.key(0))
    x = jax.random.normal(jax.random.key(1), (32, 3))
    amount, kind = x.sum(1), jnp.argmax(x @ jnp.eye(3, 4), -1)

    def parts(params):
        a, k = both.apply(params, state, x)[0]
        return jnp.mean(losses.squared_error(a, amount)), jnp.mean(losses.softmax_cross_entropy(k, kind))

    together, one, other = (
        jax.grad(f)(params) for f in (lambda p: sum(parts(p)), lambda p: parts(p)[0], lambda p: parts(p)[1])
    )
    # The trunk learns from both errors at once, each head only from its own.
    np.testing.assert_allclose(
        together["trunk"]["kernel"], one["trunk"]["kernel"] + other["trunk"]["kernel"], atol=1e-6
    )
    assert not np.any(one["kind"]["kernel"])
    assert not np.any(other["amount"]["kernel"])


@pytest.mark.covers("D08")
@pytest.mark.parametrize(("channels", "features"), [(1, 2500), (3, 7500)], ids=["grey", "colour"])
def test_a_picture_of_50_pixels_a_side_is_a_vector(channels, features):
    assert pn.out_shape(pn.flatten(), 7, 50, 50, channels) == (7, features)
    # All products of pairs of grey values, squares included: about three million.
    if channels == 1:
        assert regression.count_monomials(2500, 2) == 2500 * 2501 // 2


@pytest.mark.covers("D09")
def test_a_hundred_features_of_a_house_of_many_scales_are_regressed_after_standardising(x64):
    key, weights = jax.random.split(jax.random.key(0))
    scales = jnp.logspace(0, 4, 100)
    x = 50 + scales * jax.random.normal(key, (300, 100))
    price = x @ (jax.random.normal(weights, (100,)) / scales) + 3
    params = regression.fit_linear(standardise(standardiser(x), x), price)
    reference = LinearRegression().fit(np.asarray(x), np.asarray(price))
    predicted = standardise(standardiser(x), x) @ params["kernel"] + params["bias"]
    np.testing.assert_allclose(predicted[:, 0], reference.predict(np.asarray(x)), rtol=1e-8, atol=1e-8)


@pytest.mark.covers("M19", "D10")
def test_the_views_of_a_channel_are_predicted_from_the_day_before():
    model = pn.dense(1, 1)
    params = {"kernel": jnp.array([[1.0]]), "bias": jnp.array([500.0])}
    before, views = jnp.array([[4800.0], [4900.0]]), jnp.array([4900.0, 7500.0])
    predicted = model.apply(params, {}, before)[0][:, 0]
    errors = losses.absolute_error(predicted, views)
    assert errors.tolist() == [400.0, 2100.0]
    assert float(errors.mean()) == 1250.0


@pytest.mark.covers("M19", "D10")
def test_several_days_before_make_an_autoregression_that_finds_its_weights(x64):
    true, level = np.array([0.5, -0.3, 0.2]), 2.0
    series = [1.0, 4.0, 0.0]
    for _ in range(60):
        series.append(level + true @ series[:-4:-1])
    series = np.array(series)
    windows = np.lib.stride_tricks.sliding_window_view(series, 4)
    params = regression.fit_linear(jnp.asarray(windows[:20, 2::-1]), jnp.asarray(windows[:20, 3]))
    np.testing.assert_allclose(params["kernel"][:, 0], true, atol=1e-6)
    np.testing.assert_allclose(params["bias"], level, atol=1e-6)


@pytest.mark.covers("D11")
def test_a_sequence_goes_to_a_label_or_to_a_sequence_with_the_same_cell():
    cell = pn.rnn(pn.elman_cell(3, 5))
    label = pn.serial(cell=cell, last=lambda h: h[:, -1], head=pn.dense(5, 2))
    sequence = pn.serial(cell=cell, head=pn.dense(5, 2))
    params, state = label.init(jax.random.key(0))
    x = jax.random.normal(jax.random.key(1), (4, 7, 3))
    one, all_ = (model.apply(params, state, x)[0] for model in (label, sequence))
    assert one.shape == (4, 2)
    assert all_.shape == (4, 7, 2)
    np.testing.assert_allclose(one, all_[:, -1], atol=1e-6)


@pytest.mark.covers("W30")
def test_of_eighty_pairs_of_which_two_disagree_seventy_eight_are_right():
    written = np.tile(np.arange(10), 8)
    read = written.copy()
    read[14], read[21] = 6, 7  # a 4 read as 6 and a 1 read as 7
    assert (written[14], written[21]) == (4, 1)
    assert len(written) == 80
    right = metrics.accuracy(jax.nn.one_hot(read, 10), jnp.asarray(written))
    assert float(jnp.mean(right)) == pytest.approx(0.975)


@pytest.mark.covers("G17")
def test_no_single_rate_learns_a_thousandfold_power_from_both_sides_and_clipping_does():
    def loss(w):
        return (w**1000 - 1) ** 2 / 2

    steep, flat = (float(jax.grad(lambda w: w**1000)(w)) for w in (1.01, 0.99))
    assert steep / flat == pytest.approx((1.01 / 0.99) ** 999, rel=1e-3)
    assert 4e8 < steep / flat < 5e8

    def arrives(rule, start, steps=60_000):
        def step(carry, _):
            w, state = carry
            update, state = rule.update(jax.grad(loss)(w), state, w)
            return (w + update, state), None

        w = jnp.float32(start)
        (w, _), _ = jax.lax.scan(step, (w, rule.init(w)), None, length=steps)
        return abs(w - 1) < 1e-3

    def both(rule):
        return bool(arrives(rule, 1.01) & arrives(rule, 0.99))

    def plain(rate):
        return arrives(optim.sgd(rate), 1.01) & arrives(optim.sgd(rate), 0.99)

    assert not jax.jit(jax.vmap(plain))(10.0 ** jnp.arange(-16.0, 0.0, 0.5)).any()
    assert both(optim.chain(optim.clip_by_global_norm(100.0), optim.sgd(1e-6)))
