"""One program over many devices: meshes, rules that say which leaf lies where, steps over a mesh, many hosts.

JAX's partitioner is the engine. A rule names leaves by path and axes of the mesh by name; everything else, the
exchange between devices included, follows from where the arrays lie.
"""

from purenets.parallel.hosts import connect, from_processes
from purenets.parallel.mesh import mesh
from purenets.parallel.placement import Placement, on_mesh, place, start_on
from purenets.parallel.plan import H100, TPU_V5P, Chip, Plan, plan
from purenets.parallel.rules import (
    DATA_PARALLEL,
    LLAMA_RULES,
    RESNET_RULES,
    TRANSFORMER_RULES,
    Rules,
    shardings,
)

__all__ = [
    "DATA_PARALLEL",
    "H100",
    "LLAMA_RULES",
    "RESNET_RULES",
    "TPU_V5P",
    "TRANSFORMER_RULES",
    "Chip",
    "Placement",
    "Plan",
    "Rules",
    "connect",
    "from_processes",
    "mesh",
    "on_mesh",
    "place",
    "plan",
    "shardings",
    "start_on",
]
