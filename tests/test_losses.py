"""Losses: the lecture's numbers, optax, scikit-learn and float64 NumPy, and what happens at the edges."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import special
from sklearn import metrics as sklearn_metrics
from sklearn.svm import SVC

from purenets import losses
from purenets.gradients import central_differences

rng = np.random.default_rng(0)
X, Y = rng.normal(size=(6, 5)) * 2, rng.normal(size=(6, 5))
BITS, SIGNS = (Y > 0) * 1.0, np.where(Y > 0, 1.0, -1.0)
SHARES = special.softmax(Y, -1)
LABELS = np.array([0, 4, 2, 2, 1, 3])
PROBABILITIES = special.softmax(X / 4, -1)

# name: (prediction, target, an oracle that is not ours)
CASES = {
    "absolute_error": (X, Y, lambda a, b: np.abs(a - b)),
    "squared_error": (X, Y, optax.squared_error),
    "half_squared_error": (X, Y, optax.l2_loss),
    "squared_norm": (X, Y, lambda a, b: ((a - b) ** 2).sum(-1)),
    "distance": (X, Y, lambda a, b: np.linalg.norm(a - b, axis=-1)),
    "huber": (X, Y, optax.huber_loss),
    "cosine_distance": (X, Y, optax.cosine_distance),
    "sigmoid_binary_cross_entropy": (X, BITS, optax.sigmoid_binary_cross_entropy),
    "binary_cross_entropy": (
        special.expit(X / 4),
        SHARES,
        lambda p, t: -special.xlogy(t, p) - special.xlog1py(1 - t, -p),
    ),
    "softmax_cross_entropy": (X, LABELS, optax.softmax_cross_entropy_with_integer_labels),
    "categorical_cross_entropy": (PROBABILITIES, SHARES, lambda p, t: -special.xlogy(t, p).sum(-1)),
    "kl_divergence": (X, SHARES, lambda z, t: special.rel_entr(t, special.softmax(z, -1)).sum(-1)),
    "hinge": (X, SIGNS, optax.losses.hinge_loss),
    "perceptron_criterion": (X, SIGNS, optax.losses.perceptron_loss),
    "multiclass_hinge": (X, LABELS, jax.vmap(optax.losses.multiclass_hinge_loss)),
}
every_loss = pytest.mark.parametrize("name", CASES)


def test_every_public_loss_has_a_case():
    assert set(losses.__all__) == {*CASES, "reduce"}


@pytest.mark.covers("L01", "L02", "L03", "L04", "L05", "L06", "L07", "L12", "L13")
@every_loss
def test_values_are_those_of_the_oracle_and_gradients_those_of_central_differences(x64, name):
    prediction, target, oracle = CASES[name]

    def total(p):
        values = getattr(losses, name)(p, target)
        return jnp.sum(jnp.sin(values + 0.3)), values

    (_, values), slope = jax.jit(jax.value_and_grad(total, has_aux=True))(prediction)
    assert values.dtype == jnp.float64
    np.testing.assert_allclose(
        values, oracle(jnp.asarray(prediction), jnp.asarray(target)), rtol=1e-12, atol=1e-14
    )
    np.testing.assert_allclose(
        slope, central_differences(lambda p: total(p)[0], prediction), rtol=1e-7, atol=1e-8
    )


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float32])
@every_loss
def test_inside_everything_is_float32_whatever_the_inputs_under_jit_and_vmap_too(name, dtype):
    prediction, target, oracle = CASES[name]
    low = jnp.asarray(prediction, dtype)
    ours = jax.jit(jax.vmap(getattr(losses, name)))(low, target)
    assert ours.dtype == jnp.float32
    with jax.enable_x64(True):
        exact = oracle(jnp.asarray(np.asarray(low, np.float64)), jnp.asarray(target))
    np.testing.assert_allclose(ours, exact, rtol=2e-5, atol=2e-6)


@every_loss
def test_nan_in_gives_nan_out_for_that_example_alone(name):
    prediction, target, _ = CASES[name]
    broken = np.where(np.arange(6)[:, None] == 3, np.nan, prediction)
    out = jax.jit(getattr(losses, name))(broken, target)
    assert np.isnan(out[3]).all()
    assert np.isfinite(np.delete(out, 3, 0)).all()


@every_loss
def test_shapes_that_would_broadcast_are_refused(name):
    prediction, target, _ = CASES[name]
    column = np.asarray(prediction)[:, :1] if target.ndim == 2 else np.asarray(prediction)
    flat = np.asarray(target)[:, 0] if target.ndim == 2 else np.asarray(target)[:, None]
    with pytest.raises(ValueError, match=rf"{name} needs .* got "):
        getattr(losses, name)(column, flat)


def test_a_trailing_axis_of_one_is_named_as_the_cause():
    with pytest.raises(ValueError, match=r"one shape, got float32\[32, 1\] and float32\[32\]") as caught:
        losses.squared_error(jnp.ones((32, 1)), jnp.ones(32))
    assert caught.value.__notes__ == [
        "the prediction has one axis too many, of size 1: give prediction[..., 0]"
    ]
    with pytest.raises(ValueError, match="one shape") as caught:
        losses.squared_error(jnp.ones(32), jnp.ones((32, 1)))
    assert caught.value.__notes__ == ["the target has one axis too many, of size 1: give target[..., 0]"]


@pytest.mark.covers("L01", "W12")
def test_the_traffic_example_has_mean_absolute_error_1250():
    errors = losses.absolute_error(np.array([900.0, 2600.0]), np.array([500.0, 500.0]))
    assert errors.tolist() == [400, 2100]
    assert losses.reduce(errors) == 1250


@pytest.mark.covers("L02", "L03", "L04", "W24")
def test_the_digit_example_is_at_distance_0_6403():
    output, target = np.array([[0.1, 0.4, 0.2]]), np.array([[0.0, 1.0, 0.0]])
    assert losses.squared_norm(output, target)[0] == pytest.approx(0.41)
    assert losses.distance(output, target)[0] == pytest.approx(0.6403, abs=5e-5)
    slope = jax.grad(lambda a: losses.squared_error(a, 1.0))(0.4)
    assert slope == pytest.approx(2 * (0.4 - 1))


@pytest.mark.covers("L05", "L06", "T12")
def test_not_knowing_costs_the_logarithm_of_the_number_of_classes():
    assert losses.binary_cross_entropy(0.5, 1) == pytest.approx(0.6931, abs=5e-5)
    uniform = np.full((1, 10), 0.1)
    assert losses.categorical_cross_entropy(uniform, np.array([7]))[0] == pytest.approx(2.302585)
    assert losses.softmax_cross_entropy(np.zeros((1, 10)), np.array([7]))[0] == pytest.approx(2.302585)


@pytest.mark.covers("L07")
def test_mean_cross_entropy_is_scikit_learns_log_loss(x64):
    ours = losses.reduce(losses.softmax_cross_entropy(X, LABELS))
    assert ours == pytest.approx(sklearn_metrics.log_loss(LABELS, special.softmax(X, -1)), rel=1e-12)
    hinge = losses.reduce(losses.multiclass_hinge(X, LABELS))
    assert hinge == pytest.approx(sklearn_metrics.hinge_loss(LABELS, X), rel=1e-12)


@pytest.mark.covers("L07")
@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.5])
def test_label_smoothing_is_optax_on_smoothed_targets(x64, smoothing):
    smoothed = optax.smooth_labels(jax.nn.one_hot(LABELS, 5, dtype=jnp.float64), smoothing)
    expected = optax.softmax_cross_entropy(jnp.asarray(X), smoothed)
    for targets in (LABELS, np.eye(5)[LABELS]):
        ours = losses.softmax_cross_entropy(X, targets, label_smoothing=smoothing)
        np.testing.assert_allclose(ours, expected, rtol=1e-12)
    traced = jax.jit(lambda s: losses.softmax_cross_entropy(X, LABELS, label_smoothing=s))(smoothing)
    np.testing.assert_allclose(traced, expected, rtol=1e-12)


@pytest.mark.covers("L07")
def test_sequences_of_labels_keep_their_axes():
    logits, labels = rng.normal(size=(2, 3, 4, 5)), rng.integers(0, 5, (2, 3, 4))
    out = losses.softmax_cross_entropy(logits, labels)
    assert out.shape == (2, 3, 4)
    np.testing.assert_allclose(
        out, optax.softmax_cross_entropy_with_integer_labels(logits, labels), rtol=1e-5, atol=1e-6
    )


binary_value_and_slope = jax.jit(jax.value_and_grad(losses.sigmoid_binary_cross_entropy))


@settings(deadline=None, max_examples=60)
@given(st.floats(-200, 200), st.sampled_from([0.0, 1.0]))
def test_binary_cross_entropy_of_logits_neither_overflows_nor_cancels(z, t):
    value, slope = binary_value_and_slope(np.float32(z), np.float32(t))
    exact = np.logaddexp(0, np.float64(np.float32(-z if t else z)))
    # Below the smallest normal float32 the processor rounds to zero.
    assert value == pytest.approx(exact, rel=2e-6, abs=1.2e-38)
    assert slope == pytest.approx(special.expit(np.float64(np.float32(z))) - t, rel=2e-6, abs=6e-8)


def test_the_slope_of_binary_cross_entropy_at_a_logit_of_zero_is_exact():
    slopes = [float(binary_value_and_slope(np.float32(0), np.float32(t))[1]) for t in (0, 0.25, 1)]
    assert slopes == [0.5, 0.25, -0.5]


def test_softmax_cross_entropy_stays_exact_for_large_logits_and_ruled_out_classes():
    logits = np.array(
        [[1e4, 1e4 - 2, 0], [1e30, -1e30, 0], [0.0, -np.inf, 1.0], [3e38, -3e38, 0]], np.float32
    )
    labels = np.array([0, 0, 2, 0])
    value, slope = jax.value_and_grad(lambda z: losses.softmax_cross_entropy(z, labels).sum())(logits)
    expected = [np.log1p(np.exp(-2)), 0, np.log1p(np.exp(-1)), 0]
    np.testing.assert_allclose(losses.softmax_cross_entropy(logits, labels), expected, rtol=1e-6)
    assert value == pytest.approx(sum(expected), rel=1e-6)
    np.testing.assert_allclose(
        slope, special.softmax(logits.astype(np.float64), -1) - np.eye(3)[labels], rtol=1e-6, atol=1e-7
    )
    soft = losses.softmax_cross_entropy(logits[2:3], np.array([[0.5, 0.0, 0.5]]))
    assert soft[0] == pytest.approx(np.log1p(np.exp(-1)) + 0.5, rel=1e-6)


@pytest.mark.covers("L07")
def test_a_label_out_of_range_is_named_with_its_place():
    with pytest.raises(ValueError, match=r"label 10 at index \[1, 2\] is not one of 10 classes, 0 to 9"):
        losses.softmax_cross_entropy(jnp.zeros((2, 3, 10)), np.array([[0, 1, 2], [3, 4, 10]]))
    with pytest.raises(ValueError, match=r"label 3 at index \[0\] is not one of 3") as caught:
        losses.softmax_cross_entropy(jnp.zeros((3, 3)), np.array([3, 1, 2]))
    assert caught.value.__notes__ == ["the labels seem to count from 1: subtract 1"]
    with pytest.raises(ValueError, match=r"label -1 at index \[0\]") as caught:
        losses.multiclass_hinge(jnp.zeros((3, 3)), np.array([-1, 1, 2]))
    assert "reduce a mask, labels >= 0" in caught.value.__notes__[0]
    # Under grad the labels are still known.
    with pytest.raises(ValueError, match="label 9 at"):
        jax.grad(lambda z: losses.softmax_cross_entropy(z, np.array([9])).sum())(jnp.zeros((1, 3)))


@pytest.mark.covers("L07")
@pytest.mark.parametrize("name", ["softmax_cross_entropy", "categorical_cross_entropy", "multiclass_hinge"])
@pytest.mark.parametrize("bad", [-1, -5, 5, 2**31 - 1, -(2**31)])
def test_a_label_out_of_range_under_jit_gives_nan_and_a_gradient_of_nan(name, bad):
    labels = np.where(np.arange(6) == 2, bad, LABELS)
    fn = jax.jit(lambda p, y: getattr(losses, name)(p, y))
    out = fn(PROBABILITIES, labels)
    assert np.isnan(out[2])
    assert np.isfinite(np.delete(out, 2)).all()
    slope = jax.jit(jax.grad(lambda p, y: getattr(losses, name)(p, y).sum()))(PROBABILITIES, labels)
    assert np.isnan(slope[2]).any()
    assert np.isfinite(np.delete(slope, 2, 0)).all()


def test_small_unsigned_labels_count_beyond_their_own_range():
    out = losses.softmax_cross_entropy(np.zeros((1, 1000)), np.array([255], np.uint8))
    assert out[0] == pytest.approx(np.log(1000))


@pytest.mark.parametrize(
    ("logits", "labels", "note"),
    [
        ((4, 3), np.zeros((4, 1), int), "labels[..., 0]"),
        ((4, 3), np.zeros(4), "labels.astype(int)"),
        ((4, 3), np.eye(3, dtype=int)[[0, 1, 2, 0]], "jnp.argmax(labels, -1)"),
        ((4, 1), np.zeros(4, int), "named binary"),
    ],
    ids=["column", "float classes", "integer one-hot", "one logit"],
)
def test_labels_of_the_wrong_kind_are_refused_with_the_likely_cause(logits, labels, note):
    with pytest.raises(ValueError, match="softmax_cross_entropy needs") as caught:
        losses.softmax_cross_entropy(jnp.zeros(logits), labels)
    assert note in caught.value.__notes__[0]


@pytest.mark.covers("L05", "L06")
def test_zero_times_the_logarithm_of_zero_is_zero_and_so_is_its_slope():
    p, t = np.array([0.0, 1.0, 0.0, 1.0]), np.array([0.0, 1.0, 1.0, 0.0])
    assert losses.binary_cross_entropy(p, t).tolist() == [0, 0, np.inf, np.inf]
    slope = jax.vmap(jax.grad(losses.binary_cross_entropy))(jnp.asarray(p), jnp.asarray(t))
    assert slope.tolist() == [1, -1, -np.inf, np.inf]
    sure = np.array([[0.0, 1.0, 0.0]])
    assert losses.categorical_cross_entropy(sure, sure)[0] == 0
    slope = jax.grad(lambda p: losses.categorical_cross_entropy(p, sure).sum())(jnp.asarray(sure))
    assert slope.tolist() == [[0, -1, 0]]


def test_what_is_no_probability_gives_nan_instead_of_a_plausible_loss():
    assert np.isnan(losses.binary_cross_entropy(np.array([1.5, -0.1, 7.0]), np.array([1.0, 0.0, 1.0]))).all()
    logits = np.array([[0.5, 3.0, -1.0]])
    assert np.isnan(losses.categorical_cross_entropy(logits, np.array([0]))).all()
    assert np.isnan(losses.categorical_cross_entropy(logits, np.array([[1.0, 0, 0]]))).all()


@pytest.mark.parametrize("name", ["hinge", "perceptron_criterion"])
def test_labels_that_are_not_signs_are_refused_or_nan(name):
    fn = getattr(losses, name)
    with pytest.raises(ValueError, match=r"needs labels of -1 and \+1, got 0.0 at index \[1\]") as caught:
        fn(np.ones(3), np.array([1, 0, 1]))
    assert "2 * labels - 1" in caught.value.__notes__[0]
    out = jax.jit(fn)(np.ones(3), np.array([1, 0, -1]))
    assert np.isnan(out).tolist() == [False, True, False]


@pytest.mark.parametrize("name", ["sigmoid_binary_cross_entropy", "binary_cross_entropy"])
def test_binary_targets_outside_zero_to_one_are_refused_or_nan(name):
    fn = getattr(losses, name)
    with pytest.raises(ValueError, match=r"needs targets in \[0, 1\], got -1.0 at index \[1\]") as caught:
        fn(np.full(3, 0.5), np.array([1, -1, 1]))
    assert "(labels + 1) / 2" in caught.value.__notes__[0]
    out = jax.jit(fn)(np.full(3, 0.5), np.array([0.0, 7.0, 1.0]))
    assert np.isnan(out).tolist() == [False, True, False]


@pytest.mark.covers("L04")
def test_the_gradient_of_the_distance_is_a_unit_vector_and_zero_where_they_agree():
    target = np.zeros((4, 2))
    prediction = np.array([[0, 0], [3, 4], [3e-25, 4e-25], [3e25, 4e25]])
    value = losses.distance(prediction, target)
    np.testing.assert_allclose(value, [0, 5, 5e-25, 5e25], rtol=1e-6)
    slope = jax.grad(lambda p: losses.distance(p, target).sum())(jnp.asarray(prediction))
    np.testing.assert_allclose(slope, [[0, 0], *[[0.6, 0.8]] * 3], rtol=1e-6)
    # The control: the norm as it stands gives NaN.
    assert np.isnan(jax.grad(lambda p: jnp.linalg.norm(p))(jnp.zeros(2))).all()


def test_cosine_distance_does_not_depend_on_the_lengths_and_is_one_from_nothing():
    a, b = np.array([[1.0, 1.0]]), np.array([[1.0, 0.0]])
    for scale in (1e-25, 1.0, 1e25):
        out = losses.cosine_distance(np.float32(a * scale), np.float32(b / scale))
        np.testing.assert_allclose(out, 1 - np.sqrt(0.5), rtol=1e-5)
    fn = lambda p: losses.cosine_distance(p, b).sum()
    assert fn(np.zeros((1, 2))) == 1
    assert jax.grad(fn)(jnp.zeros((1, 2))).tolist() == [[0, 0]]


@pytest.mark.parametrize("delta", [0.3, 1.0, 2.5])
def test_huber_is_quadratic_inside_and_straight_outside(x64, delta):
    error = np.linspace(-5, 5, 41)
    np.testing.assert_allclose(
        losses.huber(error, np.zeros(41), delta=delta), special.huber(delta, error), rtol=1e-14, atol=1e-15
    )
    slope = jax.vmap(jax.grad(lambda e: losses.huber(e, 0.0, delta=delta)))(jnp.asarray(error))
    np.testing.assert_allclose(slope, np.clip(error, -delta, delta), rtol=1e-12)
    with pytest.raises(ValueError, match="positive delta, got 0"):
        losses.huber(1.0, 0.0, delta=0)


@pytest.mark.covers("L12", "M04")
def test_a_step_down_the_perceptron_criterion_is_the_perceptron_rule():
    features = np.array([[1.0, 2.0], [-1.0, 0.5], [2.0, -1.0], [0.0, 0.0]])
    for weights in (np.zeros(2), np.array([0.5, -1.0]), np.array([-0.25, 1.0])):
        for phi in features:
            for y in (-1.0, 1.0):
                answer = 1.0 if weights @ phi >= 0 else -1.0
                rule = weights + 0.1 * (y - answer) * phi
                slope = jax.grad(lambda w: losses.perceptron_criterion(w @ phi, y))(jnp.asarray(weights))
                np.testing.assert_allclose(weights - 2 * 0.1 * slope, rule, rtol=1e-6, atol=1e-7)


@pytest.mark.covers("L13")
def test_the_max_margin_objective_is_least_where_the_support_vector_machine_is(x64):
    local = np.random.default_rng(1)
    x = local.normal(size=(40, 2)) + np.where(np.arange(40) % 2, 1.0, -1.0)[:, None]
    y = np.where(np.arange(40) % 2, 1.0, -1.0)
    machine = SVC(kernel="linear", C=0.7, tol=1e-10).fit(x, y)
    w, b = machine.coef_[0], machine.intercept_[0]

    def objective(w, b):
        return 0.5 * w @ w + 0.7 * losses.reduce(losses.hinge(x @ w + b, y), how="sum")

    # By strong duality the least value is the greatest of the dual problem, which scikit-learn solved.
    dual = np.abs(machine.dual_coef_).sum() - 0.5 * w @ w
    assert objective(w, b) == pytest.approx(dual, rel=1e-8)


@pytest.mark.covers("L14")
def test_maximising_an_objective_is_minimising_its_negative(x64):
    # The likelihood of a logistic regression is an objective; the cross-entropy, its cost, is minus it.
    x, t = rng.normal(size=(20, 3)), (rng.random(20) > 0.5) * 1.0
    likelihood = lambda w: np.log(special.expit(np.where(t == 1, 1, -1) * (x @ w))).sum()
    cost = lambda w: losses.reduce(losses.sigmoid_binary_cross_entropy(x @ w, t), how="sum")
    for w in rng.normal(size=(5, 3)):
        assert cost(w) == pytest.approx(-likelihood(w), rel=1e-12)


@pytest.mark.covers("L15")
def test_the_gradient_of_a_sequence_loss_is_the_sum_of_the_gradients_over_time(x64):
    x, y = jnp.asarray(rng.normal(size=(2, 4, 3))), jnp.asarray(rng.normal(size=(2, 4, 3)))
    mask = np.array([[1, 1, 1, 1], [1, 1, 0, 0]])

    def outputs(w):
        def tick(h, x_t):
            h = jnp.tanh(h @ w + x_t)
            return h, h

        return jax.lax.scan(tick, jnp.zeros((2, 3)), x.swapaxes(0, 1))[1].swapaxes(0, 1)

    w = jnp.asarray(rng.normal(size=(3, 3)))
    whole = jax.grad(lambda w: losses.reduce(losses.squared_norm(outputs(w), y), mask, "sum", axis=1).sum())(
        w
    )
    parts = [
        jax.grad(lambda w, t=t: (((outputs(w) - y)[:, t] ** 2).sum(-1) * mask[:, t]).sum())(w)
        for t in range(4)
    ]
    np.testing.assert_allclose(whole, sum(parts), rtol=1e-12)


@pytest.mark.covers("L16", "W10")
def test_the_digit_network_of_13002_parameters_has_a_cost_of_one_number(x64):
    sizes = [784, 16, 16, 10]
    theta = rng.normal(size=13_002) * 0.1
    images, labels = rng.random((12, 784)), rng.integers(0, 10, 12)

    def cost(theta):
        x, used = images, 0
        for n_in, n_out in itertools.pairwise(sizes):
            w = theta[used : used + n_in * n_out].reshape(n_in, n_out)
            used += n_in * n_out
            x = jax.nn.sigmoid(x @ w + theta[used : used + n_out])
            used += n_out
        assert used == 13_002
        return losses.reduce(losses.squared_norm(x, np.eye(10)[labels]))

    value, slope = jax.jit(jax.value_and_grad(cost))(theta)
    assert value.shape == ()
    assert slope.shape == (13_002,)
    a = images
    for start, n_in, n_out in ((0, 784, 16), (12_560, 16, 16), (12_832, 16, 10)):
        w = theta[start : start + n_in * n_out].reshape(n_in, n_out)
        a = special.expit(a @ w + theta[start + n_in * n_out : start + (n_in + 1) * n_out])
    by_hand = np.mean([((a[i] - np.eye(10)[labels[i]]) ** 2).sum() for i in range(12)])
    assert value == pytest.approx(by_hand, rel=1e-12)


@pytest.mark.covers("L08", "DEC-07")
def test_the_gradient_of_the_sum_is_n_times_that_of_the_mean(x64):
    mean = jax.grad(lambda p: losses.reduce(losses.squared_error(p, Y), how="mean"))(jnp.asarray(X))
    total = jax.grad(lambda p: losses.reduce(losses.squared_error(p, Y), how="sum"))(jnp.asarray(X))
    np.testing.assert_allclose(total, Y.size * mean, rtol=1e-12)
    np.testing.assert_allclose(total, 2 * (X - Y), rtol=1e-12)


@pytest.mark.covers("L08")
@pytest.mark.parametrize("axis", [None, 0, 1, -1, (0, 1), [1, 2]], ids=str)
@pytest.mark.parametrize("rank", [1, 2, 3])
def test_reduce_with_weights_is_numpys_weighted_average(x64, axis, rank):
    values, weights = rng.normal(size=(4, 3, 2)), rng.random((4, 3, 2)[:rank]) + 0.1
    full = np.broadcast_to(weights.reshape(weights.shape + (1,) * (3 - rank)), values.shape)
    axes = tuple(axis) if isinstance(axis, list) else axis
    np.testing.assert_allclose(
        losses.reduce(values, weights, axis=axis), np.average(values, axes, full), rtol=1e-12
    )
    np.testing.assert_allclose(
        losses.reduce(values, weights, "sum", axis), (values * full).sum(axes), rtol=1e-12
    )
    np.testing.assert_allclose(losses.reduce(values, axis=axis), values.mean(axes), rtol=1e-12)


@pytest.mark.covers("L08")
def test_what_is_masked_counts_for_nothing_even_where_it_is_nan():
    values, mask = jnp.array([1.0, np.nan, 3.0, np.inf]), np.array([True, False, True, False])
    assert losses.reduce(values, mask) == 2
    assert losses.reduce(values, mask, "sum") == 4
    slope = jax.grad(lambda v: losses.reduce(v, mask))(values)
    assert slope.tolist() == [0.5, 0, 0.5, 0]


@pytest.mark.covers("L08")
def test_the_mean_of_nothing_is_an_error_or_nan_never_a_number():
    empty = np.zeros(3, bool)
    with pytest.raises(ValueError, match="mean of no losses: the mask is empty"):
        losses.reduce(np.ones(3), empty)
    assert np.isnan(jax.jit(losses.reduce)(np.ones(3), empty))
    with pytest.raises(ValueError, match=r"mean of no losses, got float32\[0\]"):
        losses.reduce(jnp.zeros(0))
    assert losses.reduce(np.ones(3), empty, "sum") == 0
    rows = jax.jit(lambda m: losses.reduce(jnp.ones((2, 3)), m, axis=1))(np.array([[1, 0, 0], [0, 0, 0]]))
    assert rows[0] == 1
    assert np.isnan(rows[1])


def test_a_mask_of_other_axes_and_an_unknown_reduction_are_refused():
    with pytest.raises(ValueError, match=r"leading axes of float32\[4, 3\], got bool\[3\]"):
        losses.reduce(jnp.ones((4, 3)), np.ones(3, bool))
    with pytest.raises(ValueError, match="how='mean' or how='sum', got 'average'"):
        losses.reduce(np.ones(3), how="average")


def test_low_precision_losses_are_added_up_in_float32():
    many = jnp.ones(5000, jnp.float16)
    assert losses.reduce(many, how="sum") == 5000
    assert losses.reduce(many, np.ones(5000, np.float16)) == 1
