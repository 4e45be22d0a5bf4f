"""The optimizers beyond the usual ones against their papers, where optax has none or differs."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from optax import contrib as theirs

from purenets import optim
from purenets.optim import contrib as ours
from purenets.optim.contrib.matrices import orthogonalize
from tests.optim.test_contrib import MATRICES
from tests.optim.trajectory import assert_same, gradients_of, loss_like, one_leaf, params_of, run


def test_acprop_is_the_papers_algorithm_and_its_own_documentation_in_optax(x64):
    params, gradients = one_leaf()
    updates, states, _ = run(ours.acprop(0.1, 0.8, 0.9), params, gradients)
    m, s = np.zeros(3), np.zeros(3)
    for t, g in enumerate(np.asarray(gradients)):
        before = np.sqrt(s / (1 - 0.9**t)) if t else 1.0
        np.testing.assert_allclose(updates[t], -0.1 * g / (before + 1e-16), rtol=1e-12)
        m = 0.8 * m + 0.2 * g
        s = 0.9 * s + 0.1 * (g - m) ** 2 + 1e-16
        np.testing.assert_allclose(states[0].mu[t], m, rtol=1e-12, atol=1e-14)
        np.testing.assert_allclose(states[0].nu[t], s, rtol=1e-12)
    # The negative control: optax compares with the average of the step before, (g - m) / b1.
    other = run(theirs.acprop(0.1, 0.8, 0.9), params, gradients)[0]
    np.testing.assert_allclose(other[0], updates[0], rtol=1e-12)
    np.testing.assert_allclose(other[1:], 0.8 * updates[1:], rtol=1e-9)


def test_momo_decays_the_whole_step_as_in_equation_16():
    params = jnp.asarray([1.0, 2.0, 3.0])
    value, gradient = jax.value_and_grad(lambda x: jnp.sum(x**2))(params)
    optimizer = ours.momo(1.0, weight_decay=0.1)
    updates, _ = optimizer.update(gradient, optimizer.init(params), params, value=value)
    np.testing.assert_allclose(params + updates, [0.5, 1.0, 1.5], rtol=1e-6)
    # The negative control: the numbers of the open fix, google-deepmind/optax#1787.
    other = theirs.momo(1.0, weight_decay=0.1)
    updates, _ = other.update(gradient, other.init(params), params, value=value)
    np.testing.assert_allclose(params + updates, [0.4591, 0.9182, 1.3773], rtol=1e-4)


def momo_adam_oracle(x, gradients, losses, rate, b1, b2, eps, decay):
    d, v, f, gamma = np.zeros_like(x), np.zeros_like(x), 0.0, 0.0
    points = []
    for t, (g, loss) in enumerate(zip(gradients, losses, strict=True), start=1):
        points.append(x)
        d, v = b1 * d + (1 - b1) * g, b2 * v + (1 - b2) * g * g
        f, gamma = b1 * f + (1 - b1) * loss, b1 * gamma + (1 - b1) * np.dot(g, x)
        scale = eps + np.sqrt(v / (1 - b2**t))
        norm = np.dot(d, d / scale)
        room = (1 + rate * decay) * (f - gamma) + np.dot(d, x)
        tau = min(rate / (1 - b1**t), max(room, 0) / norm)
        x = (x - tau * d / scale) / (1 + rate * decay)
    return np.asarray(points)


@pytest.mark.parametrize("decay", [0.0, 0.05])
def test_momo_adam_is_the_papers_algorithm(decay, x64):
    params, gradients = one_leaf()
    losses = loss_like(gradients)
    points = run(ours.momo_adam(0.3, 0.8, 0.95, weight_decay=decay), params, gradients, {"value": losses})[2]
    arrays = [np.asarray(a) for a in (params, gradients, losses)]
    np.testing.assert_allclose(points, momo_adam_oracle(*arrays, 0.3, 0.8, 0.95, 1e-8, decay), rtol=1e-10)


def test_schedule_free_counts_its_schedule_from_zero_as_the_base_optimizer_does():
    outside, inside = [], []

    def spy(seen):
        return lambda count: (seen.append(int(count)), 0.1)[1]

    optimizer = ours.schedule_free(optim.sgd(spy(inside)), spy(outside))
    params = jnp.ones(2)
    state = optimizer.init(params)
    for _ in range(3):
        _, state = optimizer.update(jnp.ones(2), state, params)
    assert outside == inside == [0, 1, 2]
    # The negative control: google-deepmind/optax#1744.
    seen = []
    other = theirs.schedule_free(optax.sgd(0.1), spy(seen))
    other.update(jnp.ones(2), other.init(params), params)
    assert seen == [1]


@pytest.mark.parametrize("warmup", [None, 8])
def test_schedule_free_is_the_three_sequences_of_the_paper(warmup, x64):
    y, gradients = one_leaf()
    # A rate and a length whose quotients are exact in the float32 that schedules are computed in.
    _, states, points = run(ours.schedule_free_sgd(1 / 16, warmup, b1=0.7), y, gradients)
    x = z = np.asarray(y)
    largest = total = 0.0
    for t, g in enumerate(np.asarray(gradients)):
        np.testing.assert_allclose(points[t], 0.7 * x + 0.3 * z, rtol=1e-12, atol=1e-13)
        rate = 1 / 16 if warmup is None else min(t / warmup, 1) / 16
        largest = max(largest, rate)
        total += largest**2
        z = z - rate * g
        x = x if total == 0 else x + largest**2 / total * (z - x)
        state = jax.tree.map(lambda leaf, t=t: leaf[t], states)
        after = jnp.asarray(0.7 * x + 0.3 * z)
        np.testing.assert_allclose(ours.schedule_free_eval_params(state, after), x, rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize("name", ["prodigy", "dadapt_adamw"])
def test_gradients_that_begin_with_zeros_leave_the_estimate_alone(name):
    params = {"w": jnp.ones(3), "b": jnp.ones(2)}
    zero, some = jax.tree.map(jnp.zeros_like, params), jax.tree.map(jnp.ones_like, params)
    optimizer, other = getattr(ours, name)(estim_lr0=1e-3), getattr(theirs, name)(estim_lr0=1e-3)
    state = optimizer.init(params)
    for gradient in (zero, zero, some, some, some):
        updates, state = optimizer.update(gradient, state, params)
        params = optim.apply_updates(params, updates)
        assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves((params, state)))
    assert float(params["w"][0]) < 1
    # The negative control: 0 / 0, and NaN ever after.
    assert np.isnan(other.update(zero, other.init(params), params)[1].estim_lr)


def test_normalize_of_a_zero_gradient_is_zero_and_of_any_other_has_norm_one():
    optimizer = ours.normalize()
    gradient = {"a": jnp.asarray([3.0, 0.0]), "b": jnp.asarray(4.0)}
    updates, state = optimizer.update(gradient, optimizer.init(gradient))
    np.testing.assert_allclose(optim.global_norm(updates), 1.0, rtol=1e-6)
    zero = jax.tree.map(jnp.zeros_like, gradient)
    assert_same(optimizer.update(zero, state)[0], zero, 0)
    # The negative control: google-deepmind/optax#1743.
    assert np.isnan(theirs.normalize().update(zero, state)[0]["b"])


def bowl(x):
    return jnp.sum(jnp.asarray([1.0, 5.0]) * x**2) + jnp.sum(jnp.sin(x))


@pytest.mark.parametrize("opaque", [False, True], ids=["transparent", "opaque"])
def test_sam_descends_by_the_gradient_at_the_worst_point_nearby(opaque, x64):
    optimizer = ours.sam(optim.sgd(0.02), optim.chain(ours.normalize(), optim.sgd(0.05)), opaque_mode=opaque)
    grad = jax.grad(bowl)
    x = params = jnp.asarray([1.0, -2.0])
    state = optimizer.init(params)
    for _ in range(10):
        for _ in range(1 if opaque else 2):
            extra = {"grad_fn": lambda p, i: grad(p)} if opaque else {}
            updates, state = optimizer.update(grad(params), state, params, **extra)
            params = optim.apply_updates(params, updates)
        g = grad(x)
        x = x - 0.02 * grad(x + 0.05 * g / jnp.linalg.norm(g))
        np.testing.assert_allclose(params, x, rtol=1e-12)


def test_sam_without_an_adversary_is_the_optimizer_itself(x64):
    params, gradients = one_leaf()
    mine = run(ours.sam(optim.adam(0.1), optim.sgd(0.1), sync_period=1), params, gradients)[0]
    alone = run(optax.adam(0.1), params, gradients)[0]
    assert_same(mine, alone, 1e-12)
    # The negative control: optax goes on from the point before.
    other = run(theirs.sam(optax.adam(0.1), optax.sgd(0.1), sync_period=1), params, gradients)[0]
    assert not np.allclose(other[1:], alone[1:])


def quadratic(params):
    return 0.5 * (3.0 * jnp.sum(params["a"] ** 2) + 7.0 * jnp.sum(params["b"] ** 2))


def test_hutchinsons_estimate_is_exact_where_the_hessian_is_diagonal():
    estimate = ours.hutchinson_estimator_diag_hessian(4)
    params = {"a": jnp.ones(3), "b": jnp.ones((2, 2), jnp.bfloat16)}
    diagonal, state = estimate.update(params, estimate.init(params), params, obj_fn=quadratic)
    assert diagonal["a"].tolist() == [3.0] * 3
    assert diagonal["b"].dtype == jnp.bfloat16
    assert np.asarray(diagonal["b"], float).tolist() == [[7.0] * 2] * 2
    assert not (jax.random.key_data(state.key) == jax.random.key_data(jax.random.key(4))).all()


def test_sophia_prints_its_win_rate(capsys):
    optimizer = ours.scale_by_sophia(verbose=True, print_win_rate_every_n_steps=1)
    params = {"a": jnp.ones(3), "b": jnp.ones(1)}
    optimizer.update(params, optimizer.init(params), params, obj_fn=quadratic)
    jax.effects_barrier()
    assert "a share of 0.0 of the entries is not clipped" in capsys.readouterr().out


@pytest.mark.parametrize("preconditioning", ["frobenius", "spectral", "aol", "schatten"])
@pytest.mark.parametrize("shape", [(6, 6), (9, 4), (4, 9), (3, 5, 4)], ids=str)
def test_newton_schulz_drives_the_singular_values_to_about_one(shape, preconditioning):
    x = jnp.asarray(np.random.default_rng(0).normal(size=shape), jnp.float32)
    out = np.asarray(orthogonalize(x, jnp.asarray([3.4445, -4.7750, 2.0315]), 8, preconditioning))
    values = np.linalg.svd(out, compute_uv=False)
    assert (values > 0.6).all()
    assert (values < 1.3).all()
    if preconditioning != "aol":
        # The singular vectors are those of x, so the product of one with the other transposed is symmetric.
        product = out @ np.asarray(x).swapaxes(-1, -2)
        np.testing.assert_allclose(product, product.swapaxes(-1, -2), atol=1e-4)
    assert not orthogonalize(jnp.zeros(shape), jnp.ones(3), 5, preconditioning).any()


def test_muon_of_stacked_matrices_is_muon_of_each():
    numbers = {"stack": ours.MuonDimensionNumbers(-2, -1)}
    stack = jnp.asarray(np.random.default_rng(0).normal(size=(3, 4, 5)), jnp.float32)
    for settings in ({}, {"adaptive": True}, {"preconditioning": "aol"}):
        together = ours.scale_by_muon(weight_dimension_numbers=numbers, **settings)
        updates, _ = together.update({"stack": stack}, together.init({"stack": stack}))
        apart = ours.scale_by_muon(**settings)
        for i in range(3):
            alone, _ = apart.update({"one": stack[i]}, apart.init({"one": stack[i]}))
            np.testing.assert_allclose(updates["stack"][i], alone["one"], rtol=2e-4, atol=1e-5)


def test_muon_without_dimension_numbers_takes_a_tree_of_matrices():
    params = {"a": jnp.ones((2, 3)), "b": jnp.eye(3)}
    updates, _ = ours.scale_by_muon().update(params, ours.scale_by_muon().init(params))
    assert jax.tree.map(jnp.shape, updates) == {"a": (2, 3), "b": (3, 3)}
    with pytest.raises(ValueError, match="pytree structure"):
        theirs.scale_by_muon().update(params, theirs.scale_by_muon().init(params))


def test_galore_that_keeps_every_dimension_changes_nothing(x64):
    params = params_of("float64", MATRICES)
    gradients = gradients_of("float64", 10, MATRICES)
    mine = run(ours.scale_by_galore(10, 1, base_optimizer=optim.identity()), params, gradients)[0]
    for name in MATRICES:
        # The singular vectors are found in float32.
        np.testing.assert_allclose(mine[name], gradients[name], atol=2e-6 * np.abs(gradients[name]).max())


@pytest.mark.parametrize("settings", [{}, {"rank": 2, "update_proj_gap": 7}], ids=["whole", "rank 2"])
def test_galore_equals_optax_on_the_scale_of_its_leaf_at_each_step(settings, x64):
    """Why not entry by entry: an update is ``P u``, and an entry of it may be almost zero by cancellation.

    The rounding of an entry is up to ``rank eps sum_k |P_ik| |u_kj|`` (Higham 2002, section 3.5), however
    small the entry. Because the columns of ``P`` are orthonormal, ``|P u| = |u|`` as a whole, so that bound is
    at most ``rank^1.5 rows^0.5 eps`` times the largest entry of the leaf at that step, and there is no excuse
    for more: here 1e-14, and entry by entry up to 3e-12. The bases themselves are the same numbers on both
    sides, from one float32 decomposition of one matrix.
    """
    params, gradients = params_of("float64", MATRICES), gradients_of("float64", shapes=MATRICES, seed=3)
    mine = run(ours.galore(0.1, **settings), params, gradients)[0]
    other = run(theirs.galore(0.1, **settings), params, gradients)[0]
    for name in MATRICES:
        a, b = (np.asarray(tree[name]).reshape(200, -1) for tree in (mine, other))
        largest = np.abs(b).max(axis=1)
        assert (largest > 0).all()
        assert (np.abs(a - b).max(axis=1) / largest).max() < 1e-14


@pytest.mark.parametrize("shape", [(5, 3), (3, 6)], ids=str)
def test_galore_is_adam_in_the_space_of_the_leading_singular_vectors(shape, x64):
    """The vectors of near-equal singular values are anyone's choice, and Adam depends on it: what is checked
    against the paper is their space, to the rounding of float32 over the gap behind it, and then Adam in it.
    """
    params, gradients = one_leaf(60, shape)
    updates, states, _ = run(ours.scale_by_galore(2, 7, 0.5), params, gradients)
    tall, m, v = shape[0] >= shape[1], 0.0, 0.0
    for t, g in enumerate(np.asarray(gradients)):
        side = g if tall else g.T
        basis = np.asarray(states.projector[t])
        if t % 7 == 0:
            left, sizes, _ = np.linalg.svd(side)
            loose = 20 * np.finfo(np.float32).eps * sizes[0] / (sizes[1] - sizes[2])
            np.testing.assert_allclose(basis @ basis.T, left[:, :2] @ left[:, :2].T, atol=loose)
            kept = basis
        np.testing.assert_array_equal(basis, kept)
        low = basis.T @ side
        m, v = 0.9 * m + 0.1 * low, 0.999 * v + 0.001 * low**2
        step = basis @ (m / (1 - 0.9 ** (t + 1)) / (np.sqrt(v / (1 - 0.999 ** (t + 1))) + 1e-8))
        np.testing.assert_allclose(updates[t] if tall else updates[t].T, 0.5 * step, rtol=0, atol=1e-12)


def soap_oracle(points, gradients, bases, b1, b2, eps, every):
    """Algorithm 3 of the paper in NumPy, for one matrix, from given first eigenvectors."""
    g = gradients[0]
    left, right = (1 - b2) * g @ g.T, (1 - b2) * g.T @ g
    ql, qr = bases
    m, v = np.zeros_like(g), np.zeros_like(g)
    updates = [np.zeros_like(g)]
    for t, g in enumerate(gradients[1:], start=1):
        m = b1 * m + (1 - b1) * g
        v = b2 * v + (1 - b2) * (ql.T @ g @ qr) ** 2
        direction = (ql.T @ m @ qr) / (np.sqrt(v) + eps)
        updates.append(np.sqrt(1 - b2**t) / (1 - b1**t) * ql @ direction @ qr.T)
        left, right = b2 * left + (1 - b2) * g @ g.T, b2 * right + (1 - b2) * g.T @ g
        if t % every == 0:
            # The authors' code sorts by the stretch of the old columns before the QR decomposition.
            for side, gram in enumerate((left, right)):
                q = (ql, qr)[side]
                order = np.argsort(-np.sum(q * (gram @ q), axis=0), kind="stable")
                v = np.take(v, order, axis=side)
                q = np.linalg.qr((gram @ q)[:, order])[0]
                ql, qr = (q, qr) if side == 0 else (ql, q)
    return np.asarray(updates)


@pytest.mark.parametrize("shape", [(4, 4), (5, 3)], ids=str)
def test_soap_is_the_papers_algorithm(shape, x64):
    params, gradients = one_leaf(200, shape)
    updates, states, _ = run(
        ours.scale_by_soap(0.9, 0.8, eps=1e-6, precondition_frequency=7), params, gradients
    )
    first = np.asarray(gradients[0])
    bases = [np.asarray(q[0]) for q in states.basis]
    for q, gram in zip(bases, (first @ first.T, first.T @ first), strict=True):
        np.testing.assert_allclose(q.T @ q, np.eye(len(q)), atol=1e-12)
        turned = q.T @ gram @ q
        np.testing.assert_allclose(turned, np.diag(np.diag(turned)), atol=1e-11 * np.abs(gram).max())
        assert (np.diff(np.diag(turned)) <= 1e-11 * np.abs(gram).max()).all()
    expected = soap_oracle(params, np.asarray(gradients), bases, 0.9, 0.8, 1e-6, 7)
    np.testing.assert_allclose(updates, expected, rtol=1e-7, atol=1e-7 * np.abs(expected).max())


def test_soap_of_a_vector_is_adam_from_the_second_gradient_on(x64):
    params, gradients = one_leaf()
    mine = run(ours.soap(0.1, 0.9, 0.99, eps=0.0, weight_decay=0.02), params, gradients)[0]
    adam = run(ours.soap(0.1, 0.9, 0.99, eps=0.0, weight_decay=0.0), params, gradients)[0]
    np.testing.assert_allclose(mine[0], -0.1 * 0.02 * params, rtol=1e-12)
    theirs_from_second = run(optax.adam(0.1, 0.9, 0.99, eps=0.0), params, gradients[1:])[0]
    np.testing.assert_allclose(adam[1:], theirs_from_second, rtol=1e-10)


def test_soap_turns_with_the_parameters_and_adam_does_not(x64):
    rng = np.random.default_rng(0)
    params, gradients = one_leaf(40, (4, 4))
    left, right = (jnp.asarray(np.linalg.qr(rng.normal(size=(4, 4)))[0]) for _ in range(2))
    optimizer = ours.scale_by_soap(precondition_frequency=1)
    updates = run(optimizer, params, gradients)[0]
    turned = run(optimizer, left @ params @ right, left @ gradients @ right)[0]
    np.testing.assert_allclose(turned, left @ updates @ right, atol=1e-7)
    adam = optax.scale_by_adam()
    assert not np.allclose(
        run(adam, params, left @ gradients @ right)[0],
        left @ run(adam, params, gradients)[0] @ right,
        atol=0.1,
    )


def test_soap_gives_no_basis_to_long_axes_and_one_to_every_other():
    optimizer = ours.scale_by_soap(max_precond_dim=3)
    basis = optimizer.init({"k": jnp.ones((2, 4, 3)), "b": jnp.ones(3), "s": jnp.ones(())}).basis
    assert jax.tree.map(jnp.shape, basis["k"]) == ((2, 2), None, (3, 3))
    assert basis["b"] == (None,)
    assert basis["s"] == ()


def test_a_plateau_is_waited_for_cut_and_left_alone_for_a_while():
    optimizer = ours.reduce_on_plateau(0.5, patience=2, cooldown=1)
    state, scales = optimizer.init(jnp.ones(1)), []
    for loss in (3.0, 2.0, 2.0, 2.0, 2.0, 2.0, 2.0, 1.0):
        updates, state = optimizer.update(jnp.ones(1), state, value=loss)
        scales.append(float(updates[0]))
    # Two values without improvement cut; the next does not count; then two more.
    assert scales == [1.0, 1.0, 1.0, 0.5, 0.5, 0.5, 0.25, 0.25]
