"""Learning by reward in a table: value iteration where the world is known, Q-learning where it is not.

A *world* has S states and A actions; action a in state s leads to ``next[s, a]`` and gives ``reward[s, a]``, and in
states that are ``terminal`` all ends. The value of an action is its reward and the discounted value of what follows.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from purenets.errors import describe
from purenets.layer import Key

__all__ = ["World", "grid_world", "q_learning", "value_iteration"]


class World(NamedTuple):
    """A deterministic world."""

    next: jax.Array
    """int32 ``[states, actions]``."""
    reward: jax.Array
    """``[states, actions]``."""
    terminal: jax.Array
    """bool ``[states]``."""


def _check(name: str, world: World) -> None:
    shape = jnp.shape(world.next)
    if len(shape) != 2 or jnp.shape(world.reward) != shape or jnp.shape(world.terminal) != shape[:1]:
        raise ValueError(
            f"{name} needs next and reward [states, actions] and terminal [states], got {describe(world.next)}, "
            f"{describe(world.reward)} and {describe(world.terminal)}"
        )


def grid_world(height: int, width: int, goal: tuple[int, int], *, step_reward: float = -1.0) -> World:
    """A field to cross: actions 0 to 3 go up, right, down and left; at an edge one stays; the goal ends it.

    States count row by row. Every step gives ``step_reward``, so the value of a state is the way to the goal.
    """
    rows, columns = np.divmod(np.arange(height * width), width)
    moves = np.array([[-1, 0], [0, 1], [1, 0], [0, -1]])
    to_row = np.clip(rows[:, None] + moves[:, 0], 0, height - 1)
    to_column = np.clip(columns[:, None] + moves[:, 1], 0, width - 1)
    terminal = np.arange(height * width) == goal[0] * width + goal[1]
    following = np.where(terminal[:, None], np.arange(height * width)[:, None], to_row * width + to_column)
    reward = np.where(terminal[:, None], 0.0, step_reward) * np.ones((1, 4))
    return World(jnp.asarray(following, jnp.int32), jnp.asarray(reward, jnp.float32), jnp.asarray(terminal))


def _backed_up(world: World, q: jax.Array, discount: float) -> jax.Array:
    value = jnp.where(world.terminal, 0.0, q.max(1))
    return jnp.where(world.terminal[:, None], 0.0, world.reward + discount * value[world.next])


def value_iteration(world: World, *, discount: float = 0.9, sweeps: int = 200) -> jax.Array:
    """The values of all actions, ``[states, actions]``, by backing up ``sweeps`` times (Bellman 1957).

    Raises:
        ValueError: the arrays of the world do not fit each other.
    """
    _check("value_iteration", world)
    start = jnp.zeros_like(world.reward)
    return jax.lax.fori_loop(0, sweeps, lambda _, q: _backed_up(world, q, discount), start)


def q_learning(
    key: Key,
    world: World,
    *,
    episodes: int = 500,
    steps: int = 100,
    discount: float = 0.9,
    rate: float = 0.5,
    explore: float = 0.2,
    q: jax.Array | None = None,
) -> tuple[jax.Array, jax.Array]:
    """Learn the values from experience alone (Watkins 1989): ``Q(s, a) += rate (r + discount max Q(s', .) - Q(s, a))``.

    Args:
        key: for the starts and the exploration.
        world: tried out one action at a time.
        episodes: each from a state drawn anew.
        steps: the longest an episode lasts.
        discount: of what comes a step later.
        rate: of learning.
        explore: how often an action is drawn instead of the best one.
        q: values to begin with, zeros by default.

    Returns:
        The values ``[states, actions]``, and the sum of rewards of each episode.

    Raises:
        ValueError: the arrays of the world do not fit each other.
    """
    _check("q_learning", world)
    states, actions = world.next.shape

    def step(carry: Any, key: Key) -> Any:
        q, state, total = carry
        whether, which = jax.random.split(key)
        drawn = jax.random.randint(which, (), 0, actions)
        action = jnp.where(jax.random.uniform(whether) < explore, drawn, jnp.argmax(q[state]))
        over = world.terminal[state]
        reward, after = world.reward[state, action], world.next[state, action]
        target = reward + discount * jnp.where(world.terminal[after], 0.0, q[after].max())
        change = jnp.where(over, 0.0, rate * (target - q[state, action]))
        return (q.at[state, action].add(change), after, total + jnp.where(over, 0.0, reward)), None

    def episode(q: jax.Array, key: Key) -> Any:
        begin, play = jax.random.split(key)
        state = jax.random.randint(begin, (), 0, states)
        (q, _, total), _ = jax.lax.scan(step, (q, state, jnp.float32(0)), jax.random.split(play, steps))
        return q, total

    first = jnp.zeros_like(world.reward) if q is None else q
    return jax.lax.scan(episode, first, jax.random.split(key, episodes))
