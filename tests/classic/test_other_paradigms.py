"""Reward, clusters, components and few labels: closed forms and scikit-learn."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn import cluster, decomposition

from purenets import data
from purenets.classic import q_learning as q
from purenets.classic import unsupervised as u
from tests.layers.peers import normal


def test_values_of_a_field_are_the_discounted_way_to_the_goal():
    world = q.grid_world(4, 5, (2, 3))
    values = q.value_iteration(world, discount=0.9).max(1).reshape(4, 5)
    rows, columns = np.mgrid[:4, :5]
    way = abs(rows - 2) + abs(columns - 3)
    np.testing.assert_allclose(values, -(1 - 0.9**way) / 0.1, rtol=1e-5)


def test_learning_from_experience_comes_to_the_values_of_iteration():
    world = q.grid_world(3, 3, (2, 2))
    learned, rewards = jax.jit(lambda key: q.q_learning(key, world, episodes=2000, explore=0.5))(
        jax.random.key(0)
    )
    np.testing.assert_allclose(learned, q.value_iteration(world), atol=1e-3)
    assert rewards.shape == (2000,)


def test_one_step_of_learning_is_the_printed_rule():
    """Two states in a row: Q(s, a) += rate (r + discount max Q(s') - Q(s, a))."""
    world = q.World(jnp.array([[1], [1]]), jnp.array([[2.0], [0.0]]), jnp.array([False, False]))
    start = jnp.array([[1.0], [4.0]])
    after, _ = q.q_learning(jax.random.key(3), world, episodes=1, steps=1, discount=0.5, rate=0.1, q=start)
    from_0 = jnp.array([[1 + 0.1 * (2 + 0.5 * 4 - 1)], [4.0]])
    from_1 = jnp.array([[1.0], [4 + 0.1 * (0 + 0.5 * 4 - 4)]])
    assert np.allclose(after, from_0) or np.allclose(after, from_1)


def test_a_world_that_does_not_fit_is_refused():
    with pytest.raises(ValueError, match=r"needs next and reward \[states, actions\]"):
        q.value_iteration(q.World(jnp.zeros((3, 2), int), jnp.zeros((2, 2)), jnp.zeros(3, bool)))


def test_k_means_agrees_with_scikit_learn_from_the_same_centres(x64):
    x = normal(80, 3, dtype=jnp.float64)
    first = x[:5]
    ours = u.fit_kmeans(x, 5, centres=first)
    theirs = cluster.KMeans(5, init=np.asarray(first), n_init=1, tol=0).fit(x)
    np.testing.assert_allclose(ours.centres, theirs.cluster_centers_, rtol=1e-10)
    np.testing.assert_array_equal(ours.labels, theirs.labels_)
    np.testing.assert_allclose(ours.inertia, theirs.inertia_, rtol=1e-10)


def test_k_means_finds_clusters_that_are_apart():
    centers = jnp.array([[0.0, 0.0], [8.0, 0.0], [0.0, 8.0]])
    x, y = data.blobs(jax.random.key(0), 90, centers)
    found = u.fit_kmeans(x, int(y.max()) + 1, jax.random.key(1))
    assert found.centres.shape[1] == x.shape[1]
    for label in range(int(y.max()) + 1):
        share = np.bincount(found.labels[y == label]).max() / int((y == label).sum())
        assert share == 1


def test_principal_components_agree_with_scikit_learn(x64):
    x = normal(60, 5, dtype=jnp.float64) @ jnp.diag(jnp.array([3.0, 2, 1, 0.5, 0.1]))
    ours, theirs = u.fit_pca(x, 3), decomposition.PCA(3).fit(x)
    np.testing.assert_allclose(ours.variance, theirs.explained_variance_, rtol=1e-10)
    np.testing.assert_allclose(abs(ours.components @ theirs.components_.T), np.eye(3), atol=1e-8)
    np.testing.assert_allclose(
        ours.decode(ours.encode(x)), theirs.inverse_transform(theirs.transform(x)), atol=1e-10
    )


def test_self_training_labels_what_it_is_sure_of_and_does_better_than_few_labels_alone():
    """Two round clouds side by side; the labelled examples lie so that alone they suggest a slanting border."""
    y = jnp.arange(300) % 2
    x = 0.6 * normal(300, 2) + jnp.stack([2.0 * y - 1, jnp.zeros(300)], 1)
    slant = (2 * y - 1) * x[:, 1]
    chosen = jnp.argsort(-slant)[:12]
    labelled = jnp.zeros(300, bool).at[chosen].set(True)
    chances = lambda centres, x: jax.nn.softmax(-jnp.sum((x[:, None] - centres) ** 2, -1))
    centres, counts = u.self_training(_centres, chances, x, y, labelled, 2, sure=0.7, rounds=20)
    alone = _centres(x, jax.nn.one_hot(y, 2), labelled.astype(x.dtype))
    right = lambda centres: float(jnp.mean(jnp.argmax(chances(centres, x), 1) == y))
    assert counts[0] == 12 < counts[-1]
    assert right(centres) > right(alone) + 0.03


def _centres(x, shares, weights):
    """The middle of each class, of the examples that count."""
    member = shares * weights[:, None]
    return member.T @ x / member.sum(0)[:, None]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: u.fit_kmeans(jnp.ones((3, 2)), 4), "at least k = 4 examples"),
        (lambda: u.fit_kmeans(jnp.ones((3, 2)), 2), "needs a key to draw the first centres"),
        (lambda: u.fit_pca(jnp.ones((3, 2)), 3), "of at least 3 each"),
    ],
    ids=["few", "no key", "components"],
)
def test_bad_data_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
