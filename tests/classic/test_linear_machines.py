"""Perceptron, ADALINE, regressions and support vector machines beside scikit-learn and closed forms."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn import linear_model, preprocessing
from sklearn import svm as their_svm

import purenets as pn
from purenets import losses, optim
from purenets.classic import perceptron as p
from purenets.classic import regression as r
from purenets.classic import svm as s
from tests.layers.peers import normal


def _separable(n=60, gap=0.3):
    x = np.random.default_rng(0).normal(size=(n * 4, 2))
    score = x @ [1.0, -2.0] + 0.3
    kept = np.abs(score) > gap
    return jnp.asarray(x[kept][:n]), jnp.asarray(np.sign(score[kept][:n]))


XOR = jnp.array([[0.0, 0], [0, 1], [1, 0], [1, 1]]), jnp.array([-1.0, 1, 1, -1])


@pytest.mark.covers("M04", "W26")
@pytest.mark.parametrize(
    ("bias", "label", "moves"), [(1.0, -1.0, -2), (-1.0, 1.0, 2), (1.0, 1.0, 0), (-1.0, -1.0, 0)]
)
def test_a_wrong_decision_moves_the_weights_by_twice_the_rate_and_a_right_one_by_nothing(bias, label, moves):
    start = {"kernel": jnp.zeros(2), "bias": jnp.float32(bias)}
    x = jnp.array([[0.5, -3.0]])
    fit = p.fit_perceptron(x, jnp.array([label]), epochs=1, rate=0.1, params=start)
    np.testing.assert_allclose(fit.params["kernel"], 0.1 * moves * x[0], rtol=1e-6)
    np.testing.assert_allclose(fit.params["bias"], bias + 0.1 * moves, rtol=1e-6)


@pytest.mark.covers("M03", "M04")
def test_separable_data_are_learned_within_novikoffs_bound():
    x, y = _separable()
    fit = p.fit_perceptron(x, y, epochs=200)
    assert bool(fit.separated)
    np.testing.assert_array_equal(p.decide(fit.params, x), y)
    truth = {"kernel": jnp.array([1.0, -2.0]), "bias": jnp.asarray(0.3)}
    assert int(fit.mistakes.sum()) <= float(p.mistake_bound(x, y, truth))
    assert p.mistake_bound(*XOR, truth) == jnp.inf


@pytest.mark.covers("M04")
def test_the_perceptron_agrees_with_scikit_learn(x64):
    x, y = (jnp.asarray(a, jnp.float64) for a in _separable())
    first = int(jnp.argmin(y))  # at weights of zero they call any label wrong, we call -1 wrong
    x, y = jnp.roll(x, -first, 0), jnp.roll(y, -first)
    theirs = linear_model.Perceptron(shuffle=False, max_iter=7, tol=None, eta0=1.0).fit(x, y)
    ours = p.fit_perceptron(x, y, epochs=7, rate=0.5).params  # theirs moves by the rate, ours by twice it
    np.testing.assert_allclose(ours["kernel"], theirs.coef_[0], rtol=1e-10)
    np.testing.assert_allclose(ours["bias"], theirs.intercept_[0], rtol=1e-10)


@pytest.mark.covers("M04", "M08")
def test_on_exclusive_or_it_goes_on_making_mistakes_and_says_so():
    fit = p.fit_perceptron(*XOR, epochs=500)
    assert not bool(fit.separated)
    assert int(fit.mistakes[-100:].min()) > 0


@pytest.mark.covers("M03")
def test_over_a_feature_map_it_learns_exclusive_or():
    x = r.polynomial_features(XOR[0], 2)
    fit = p.fit_perceptron(x, XOR[1], epochs=100)
    assert bool(fit.separated)


@pytest.mark.covers("M05")
def test_a_step_of_the_adaline_is_a_step_of_gradient_descent_on_half_the_squared_error():
    x, y = normal(1, 3), jnp.array([2.0])
    start = {"kernel": normal(3, seed=1), "bias": jnp.float32(0.3)}
    moved, _ = p.fit_adaline(x, y, epochs=1, rate=0.1, params=start)
    slope = jax.grad(lambda w: 0.5 * jnp.sum((y - p.score(w, x)) ** 2))(start)
    jax.tree.map(lambda a, b, g: np.testing.assert_allclose(a, b - 0.1 * g, rtol=1e-6), moved, start, slope)


@pytest.mark.covers("M05")
def test_the_adaline_comes_to_the_least_squares_solution_the_perceptron_need_not(x64):
    x = normal(50, 3, dtype=jnp.float64)
    y = x @ jnp.array([1.0, -2.0, 0.5]) + 0.7
    fitted, errors = p.fit_adaline(x, y, epochs=300, rate=0.05)
    wanted = r.fit_linear(x, y)
    np.testing.assert_allclose(fitted["kernel"], wanted["kernel"][:, 0], atol=1e-8)
    assert errors[-1] < 1e-12 < errors[0]


@pytest.mark.covers("M12", "M13", "M16")
@pytest.mark.parametrize("ridge", [0.0, 3.0])
def test_least_squares_agree_with_scikit_learn_and_the_normal_equations(ridge, x64):
    x, y = normal(40, 5, dtype=jnp.float64), normal(40, 3, seed=1, dtype=jnp.float64)
    found = r.fit_linear(x, y, ridge=ridge)
    theirs = (linear_model.Ridge(ridge) if ridge else linear_model.LinearRegression()).fit(x, y)
    np.testing.assert_allclose(found["kernel"], theirs.coef_.T, rtol=1e-8)
    np.testing.assert_allclose(found["bias"], theirs.intercept_, rtol=1e-8)
    apart = [r.fit_linear(x, y[:, i], ridge=ridge)["kernel"][:, 0] for i in range(3)]
    np.testing.assert_allclose(found["kernel"], jnp.stack(apart, 1), rtol=1e-9)
    both = jnp.concatenate([x, jnp.ones((40, 1))], 1)
    penalty = ridge * jnp.diag(jnp.array([1.0] * 5 + [0.0]))
    np.testing.assert_allclose(
        jnp.linalg.solve(both.T @ both + penalty, both.T @ y)[:5], found["kernel"], rtol=1e-8
    )


@pytest.mark.covers("M13", "M16")
def test_gradient_descent_comes_to_the_closed_form(x64):
    x, y = normal(40, 3, dtype=jnp.float64), normal(40, 2, seed=1, dtype=jnp.float64)
    model = pn.dense(3, 2)
    step = pn.make_step(pn.supervised(model, losses.squared_norm), optim.sgd(0.1))
    ts = pn.start(model, step.optimizer, jax.random.key(0))
    ts = ts._replace(params=jax.tree.map(lambda leaf: leaf.astype(jnp.float64), ts.params))
    ts, _ = jax.jit(lambda ts: pn.train(step, ts, (x, y), epochs=500, batch_size=40, shuffle=False))(ts)
    wanted = r.fit_linear(x, y)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-7), ts.params, wanted)


@pytest.mark.covers("M12")
def test_features_that_depend_on_each_other_give_the_solution_of_least_norm(x64):
    x = normal(10, 2, dtype=jnp.float64)
    twice = jnp.concatenate([x, x], 1)
    y = x @ jnp.array([1.0, 3.0])
    np.testing.assert_allclose(r.fit_linear(twice, y)["kernel"][:, 0], [0.5, 1.5, 0.5, 1.5], rtol=1e-8)


@pytest.mark.covers("M14")
def test_logistic_regression_agrees_with_scikit_learn_and_has_the_printed_gradient(x64):
    x = normal(80, 3, dtype=jnp.float64)
    y = (x[:, 0] + 0.5 * normal(80, seed=1, dtype=jnp.float64) > 0).astype(jnp.float64)
    found = r.fit_logistic(x, y, penalty=0.5)
    theirs = linear_model.LogisticRegression(C=2.0, tol=1e-10, max_iter=1000).fit(x, y)
    np.testing.assert_allclose(found["kernel"][:, 0], theirs.coef_[0], rtol=1e-5)
    np.testing.assert_allclose(found["bias"], theirs.intercept_, rtol=1e-4, atol=1e-6)
    kernel = normal(3, seed=2, dtype=jnp.float64)
    mean_bce = lambda w: jnp.mean(losses.sigmoid_binary_cross_entropy(x @ w, y))
    printed = x.T @ (jax.nn.sigmoid(x @ kernel) - y) / len(x)
    np.testing.assert_allclose(jax.grad(mean_bce)(kernel), printed, rtol=1e-10)


@pytest.mark.covers("M17")
def test_softmax_regression_agrees_with_scikit_learn_and_two_classes_are_logistic(x64):
    x = normal(90, 2, dtype=jnp.float64)
    y = jnp.argmax(x @ jnp.array([[1.0, -1, 0], [0, 1, -1]]) + normal(90, 3, seed=1, dtype=jnp.float64), 1)
    found = r.fit_softmax(x, jax.nn.one_hot(y, 3), penalty=0.7)
    theirs = linear_model.LogisticRegression(C=1 / 0.7, tol=1e-10, max_iter=1000).fit(x, y)
    ours = jax.nn.softmax(x @ found["kernel"] + found["bias"])
    np.testing.assert_allclose(ours, theirs.predict_proba(x), atol=1e-5)
    np.testing.assert_allclose(ours.sum(1), 1, rtol=1e-12)
    z = jnp.array([0.3, -1.2])
    np.testing.assert_allclose(jax.nn.softmax(z)[0], jax.nn.sigmoid(z[0] - z[1]), rtol=1e-12)
    np.testing.assert_allclose(jax.nn.softmax(z + 1000), jax.nn.softmax(z), rtol=1e-12)


@pytest.mark.covers("M15", "W18")
def test_monomials_are_counted_as_printed_and_are_those_of_scikit_learn():
    assert r.count_monomials(100, 2) == 5_050
    assert r.count_monomials(100, 3) == 171_700
    assert r.count_monomials(2500, 2) == 3_126_250
    assert r.count_monomials(7500, 2) == 28_128_750
    assert r.count_monomials(2500, 2) - 2500 == 3_123_750
    x = normal(5, 3)
    theirs = preprocessing.PolynomialFeatures(3, include_bias=False).fit_transform(x)
    np.testing.assert_allclose(r.polynomial_features(x, 3), theirs, rtol=1e-5)


@pytest.mark.covers("M15")
def test_polynomial_logistic_regression_tells_a_disc_from_its_surroundings():
    x = 2 * normal(200, 2)
    y = (jnp.sum(x**2, 1) < 2).astype(jnp.float32)
    features = r.polynomial_features(x, 2)
    found = r.fit_logistic(features, y, penalty=1e-3)
    assert float(jnp.mean((features @ found["kernel"] + found["bias"] > 0)[:, 0] == y)) > 0.99
    plain = r.fit_logistic(x, y, penalty=1e-3)
    assert float(jnp.mean((x @ plain["kernel"] + plain["bias"] > 0)[:, 0] == y)) < 0.9


KERNELS = {
    "linear": (s.linear, {"kernel": "linear"}),
    "polynomial": (s.polynomial(2), {"kernel": "poly", "degree": 2, "gamma": 1.0, "coef0": 1.0}),
    "rbf": (s.rbf(0.7), {"kernel": "rbf", "gamma": 0.7}),
}


@pytest.mark.covers("M35", "M36")
@pytest.mark.parametrize("name", KERNELS)
def test_support_vector_machines_agree_with_scikit_learn_on_the_kernel_with_its_bias(name, x64):
    """``K + 1`` handed to scikit-learn as a kernel of its own; its free bias is then next to nothing to it."""
    x = normal(50, 2, dtype=jnp.float64)
    y = jnp.sign(x[:, 0] * x[:, 1] + 0.3 * x[:, 0] + 0.1)
    kernel, _ = KERNELS[name]
    found = s.fit_svm(x, y, kernel, cost=1.0, sweeps=3000)
    assert float(found.gap) < 1e-6
    gram = np.asarray(kernel(x, x) + 1)
    a = np.abs(np.asarray(found.weights))
    dual = a.sum() - 0.5 * (a * y) @ gram @ (a * y)
    theirs = their_svm.SVC(C=1.0, kernel="precomputed", tol=1e-10).fit(gram, y)
    b = np.zeros(50)
    b[theirs.support_] = theirs.dual_coef_[0]
    # Theirs also asks for sum a y = 0, so that its maximum is at most ours.
    assert np.abs(b).sum() - 0.5 * b @ gram @ b <= dual + 1e-8
    free = s.fit_svm_by_gradient(x, y, steps=20000) if name == "linear" else None
    if free is not None:
        np.testing.assert_allclose(p.score(free, x), s.svm_score(found, x), atol=0.03)


@pytest.mark.covers("M35")
def test_the_linear_machine_agrees_with_liblinear(x64):
    x, y = (jnp.asarray(a, jnp.float64) for a in _separable(40))
    found = s.fit_svm(x, y, cost=1.0, sweeps=5000)
    theirs = their_svm.LinearSVC(C=1.0, loss="hinge", tol=1e-10, max_iter=1_000_000).fit(x, y)
    np.testing.assert_allclose(s.svm_score(found, x), theirs.decision_function(x), atol=1e-3)


@pytest.mark.covers("M35")
def test_support_vectors_of_a_hard_margin_lie_at_its_distance(x64):
    """Two points: the plane is half way, the margin half their distance (here with the bias penalised by design)."""
    x, y = jnp.array([[1.0, 1.0], [-1.0, -1.0]]), jnp.array([1.0, -1.0])
    found = s.fit_svm(x, y, cost=1e6)
    np.testing.assert_allclose(s.svm_score(found, x), y, rtol=1e-6)
    w = found.weights @ x
    np.testing.assert_allclose(1 / jnp.linalg.norm(w), np.sqrt(2), rtol=1e-6)


@pytest.mark.covers("M36")
@pytest.mark.parametrize("kernel", [s.rbf(1.0), s.polynomial(2)], ids=["rbf", "polynomial"])
def test_a_kernel_solves_exclusive_or_and_its_matrix_is_n_by_n(kernel):
    found = s.fit_svm(*XOR, kernel, cost=100.0, sweeps=500)
    np.testing.assert_array_equal(jnp.sign(s.svm_score(found, XOR[0], kernel)), XOR[1])
    assert kernel(XOR[0], XOR[0]).shape == (4, 4)
    line = s.fit_svm(*XOR, s.linear, cost=100.0, sweeps=500)
    assert not np.array_equal(jnp.sign(s.svm_score(line, XOR[0])), XOR[1])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: p.fit_perceptron(XOR[0], jnp.array([0, 1, 1, 0])), r"needs labels -1 and \+1, got \[0, 1\]"),
        (lambda: s.fit_svm(XOR[0], jnp.array([0, 1, 1, 0])), r"needs labels -1 and \+1"),
        (lambda: p.fit_perceptron(XOR[0], XOR[1][:3]), r"needs x \[n, features\] and y \[n\]"),
        (
            lambda: s.fit_svm(*XOR, lambda a, b: -(a @ b.T)),
            "not positive semidefinite: its matrix has the eigenvalue",
        ),
        (lambda: s.fit_svm(*XOR, lambda a, b: a[:, :1] + 0 * b.T[:1]), "the kernel is not symmetric"),
        (lambda: s.fit_svm(*XOR, cost=0.0), "needs a positive cost"),
        (lambda: r.fit_linear(jnp.ones((3, 2)), jnp.ones((4, 1))), r"fit_linear needs x \[n, features\]"),
    ],
    ids=["perceptron labels", "svm labels", "lengths", "not psd", "not symmetric", "cost", "rows"],
)
def test_bad_data_and_kernels_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_labels_of_zero_and_one_get_a_hint():
    with pytest.raises(ValueError) as caught:
        p.fit_perceptron(XOR[0], jnp.array([0, 1, 1, 0]))
    assert "labels of 0 and 1 become signs by 2 * y - 1" in caught.value.__notes__[0]
