"""Learning by trial and error in a table comes to the values that are computed where the world is known.

Catalogue row D04 (Watkins 1989; Bellman 1957): the field to cross is our own, since only a table
of learned values is printed and not the world they come from. Q-learning is run over many seeds and two amounts of
exploration, and compared with value iteration, and value iteration with the closed form ``-(1 - g^k) / (1 - g)``
for a state k steps from the goal. The printed table is read by its greedy policy.

Refuted if the learned values of any seed that explores half of the time end farther than 0.01 from the computed ones,
or if its greedy policy takes longer ways than the shortest.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.figures import axes, curves
from experiments.report import Report, Table, Verdict, verdict
from purenets.classic.q_learning import World, grid_world, q_learning, value_iteration

PRINTED = {
    "start": (0, 0, 1, 0),
    "idle": (0, 0, 0, 0),
    "correct path": (0, 50, 22, 0),
    "wrong path": (15, 0, 18, 0),
    "end": (0, 0, 1, 0),
}
"""The printed values of four actions in five states."""
MOVES = ("up", "down", "right", "left")


@dataclass(frozen=True)
class Config:
    """Settings of the run."""

    height: int = 5
    width: int = 6
    discount: float = 0.9
    episodes: int = 3000
    stages: int = 30
    """How often in between the values are compared."""
    explore: tuple[float, ...] = (0.1, 0.5)
    seeds: int = 16


def greedy(values: tuple[float, ...]) -> str:
    """The action of the highest value, or ``tie``."""
    best = [move for move, value in zip(MOVES, values, strict=True) if value == max(values)]
    return best[0] if len(best) == 1 else "tie"


def way(world: World, q: jax.Array, most: int) -> jax.Array:
    """How many steps the greedy policy takes from every state, ``most`` if it does not arrive."""

    def step(carry: Any, _: None) -> Any:
        state, taken = carry
        taken = taken + ~world.terminal[state]
        return (world.next[state, jnp.argmax(q[state], 1)], taken), None

    states = jnp.arange(len(world.terminal))
    (_, taken), _ = jax.lax.scan(step, (states, jnp.zeros_like(states)), None, length=most)
    return taken


def learned(key: jax.Array, explore: Any, world: World, config: Config) -> Any:
    """The values at the end and, stage by stage, those of the best actions."""

    def stage(q: jax.Array, key: jax.Array) -> Any:
        q, _ = q_learning(
            key,
            world,
            episodes=config.episodes // config.stages,
            discount=config.discount,
            explore=explore,
            q=q,
        )
        return q, q.max(1)

    return jax.lax.scan(stage, jnp.zeros_like(world.reward), jax.random.split(key, config.stages))


def decide(closed: float, error: float, detour: int) -> Verdict:
    """By the worst errors of iteration and of learning, and the steps taken too many."""
    return verdict(closed < 1e-4 and error < 0.01 and detour == 0)


def run(config: Config) -> Report:
    """Iterate, learn over all seeds, and read the printed table."""
    goal = (config.height - 2, config.width - 2)
    world = grid_world(config.height, config.width, goal)
    exact = value_iteration(world, discount=config.discount)
    rows, columns = np.divmod(np.arange(config.height * config.width), config.width)
    shortest = abs(rows - goal[0]) + abs(columns - goal[1])
    formula = -(1 - config.discount**shortest) / (1 - config.discount)
    closed = float(np.abs(np.asarray(exact).max(1) - formula).max())
    many = jax.jit(jax.vmap(lambda key, explore: learned(key, explore, world, config), (0, None)))
    # The same seeds for each amount of exploration.
    found = [many(jax.random.split(jax.random.key(0), config.seeds), e) for e in config.explore]
    q, stages = (jnp.stack(parts) for parts in zip(*found, strict=True))
    errors = np.abs(np.asarray(q - exact)).max((2, 3))
    most = 2 * (config.height + config.width)
    ways = jax.vmap(jax.vmap(lambda q: way(world, q, most)))(q)
    detours = (np.asarray(ways) - shortest).max(2)
    lines = np.abs(np.asarray(stages) - formula).max(-1)
    after = (np.arange(config.stages) + 1) * (config.episodes // config.stages)
    figure, panel = axes("column", "row", width=5.6, height=4.2)
    field = np.asarray(q[-1, 0]).max(1).reshape(config.height, config.width)
    panel.imshow(field)
    panel.grid(False)
    for state, (row, column) in enumerate(zip(rows, columns, strict=True)):
        arrow = "goal" if (row, column) == goal else "↑→↓←"[int(np.argmax(q[-1, 0, state]))]
        panel.text(column, row, f"{arrow}\n{field[row, column]:.2f}", ha="center", va="center", color="white")
    policy = {state: greedy(values) for state, values in PRINTED.items()}
    worst, detour = float(errors[-1].max()), int(detours[-1].max())
    return Report(
        numbers={
            "value iteration, worst error": closed,
            **{
                f"exploring {e:g}: worst error (median, most over seeds)": [
                    float(np.median(errors[i])),
                    float(errors[i].max()),
                ]
                for i, e in enumerate(config.explore)
            },
            f"exploring {config.explore[-1]:g}: steps too many": detour,
            "printed table, greedy policy": ", ".join(policy.values()),
        },
        verdict=decide(closed, worst, detour),
        because=f"after {config.episodes} episodes with exploration {config.explore[-1]:g} the values of "
        f"{config.seeds} seeds are within {worst:.1e} of the computed ones and the greedy ways {detour} steps too "
        f"long; value iteration is within {closed:.1e} of the closed form",
        figures={
            "error_by_episode": curves(
                {
                    f"exploring {e:g}": np.maximum(np.median(lines[i], 0), 1e-7)
                    for i, e in enumerate(config.explore)
                },
                x="episodes",
                y="worst error of a state's value (median of seeds)",
                at=after,
                log="y",
            ),
            "learned_values": figure,
        },
        tables={
            "The printed table": Table(
                ["state", *MOVES, "greedy"],
                [[state, *values, policy[state]] for state, values in PRINTED.items()],
            )
        },
    )
