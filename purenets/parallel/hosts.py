"""Many hosts: one process on each, the same program in all, started together.

::

    parallel.connect()                                  # before anything touches a device
    mesh = parallel.mesh(data=-1)                       # the devices of all processes
    batch = parallel.from_processes(own_rows, step.placement)
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

from purenets.parallel.placement import Placement

__all__ = ["Cluster", "connect", "find_cluster", "from_processes"]

_TORCHRUN = ("MASTER_ADDR", "MASTER_PORT", "WORLD_SIZE", "RANK")
_KNOWN = (
    "SLURM_STEP_NUM_TASKS",
    "OMPI_COMM_WORLD_SIZE",
    "PMI_SIZE",
    "TPU_WORKER_HOSTNAMES",
    "MEGASCALE_COORDINATOR_ADDRESS",
)


class Cluster(NamedTuple):
    """Who takes part; None where JAX finds out by itself."""

    coordinator: str | None
    """``host:port`` of process 0."""
    processes: int | None
    process: int | None


def find_cluster(
    coordinator: str | None = None,
    processes: int | None = None,
    process: int | None = None,
    environment: Mapping[str, str] = os.environ,
) -> Cluster | None:
    """The cluster that this process is part of, or None where it is alone.

    What is given counts; then torchrun's variables ``MASTER_ADDR``, ``MASTER_PORT``, ``WORLD_SIZE`` and
    ``RANK``; then the schedulers that JAX knows: Slurm, Open MPI, MPICH, Cloud TPU.

    Raises:
        ValueError: some of the three are given, or set, and others are not.
    """
    given = {"coordinator": coordinator, "processes": processes, "process": process}
    if any(value is not None for value in given.values()):
        if missing := [name for name, value in given.items() if value is None]:
            raise ValueError(
                f"connect needs coordinator, processes and process together; missing: {', '.join(missing)}"
            )
        if not 0 <= (process or 0) < (processes or 0):
            raise ValueError(f"process {process} is not one of 0 .. {(processes or 0) - 1}")
        return Cluster(coordinator, processes, process)
    found = {name: environment[name] for name in _TORCHRUN if name in environment}
    if found and len(found) < len(_TORCHRUN):
        missing = [name for name in _TORCHRUN if name not in found]
        raise ValueError(f"{', '.join(found)} are set and {', '.join(missing)} not: a cluster needs all four")
    if found:
        address = f"{found['MASTER_ADDR']}:{found['MASTER_PORT']}"
        return Cluster(address, int(found["WORLD_SIZE"]), int(found["RANK"]))
    if any(name in environment for name in _KNOWN):
        return Cluster(None, None, None)
    return None


def connect(coordinator: str | None = None, processes: int | None = None, process: int | None = None) -> int:
    """Join the other processes, before anything touches a device; alone it does nothing.

    Args:
        coordinator: ``host:port`` of process 0, for example from flags; see :func:`find_cluster` for where it
            comes from otherwise.
        processes: how many there are.
        process: which of them this is, from 0.

    Returns:
        The number of this process.

    Raises:
        ValueError: as :func:`find_cluster`.
        RuntimeError: devices were used before, or the others did not come in time.
    """
    cluster = find_cluster(coordinator, processes, process)
    if cluster is not None and not jax.distributed.is_initialized():
        jax.distributed.initialize(cluster.coordinator, cluster.processes, cluster.process)
    return jax.process_index()


def from_processes(rows: Any, placement: Placement) -> Any:
    """One batch over the mesh from the rows that each process has: ``[own rows, ...]`` to ``[all rows, ...]``.

    Process after process, in the order of the mesh. Every process has equally many.

    Raises:
        ValueError: as :meth:`Placement.of_batch`, for all rows together.
    """
    count = jax.process_count()
    together = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct((len(leaf) * count, *leaf.shape[1:]), leaf.dtype), rows
    )
    return jax.tree.map(
        lambda sharding, leaf: jax.make_array_from_process_local_data(sharding, np.asarray(leaf)),
        placement.of_batch(together),
        rows,
    )
