"""One program over many devices: meshes, rules that say which leaf lies where, steps over a mesh, many hosts.

JAX's partitioner is the engine. A rule names leaves by path and axes of the mesh by name; everything else, the
exchange between devices included, follows from where the arrays lie.
"""

from purenets.parallel.hosts import connect, from_processes
from purenets.parallel.mesh import mesh
from purenets.parallel.placement import Placement, on_mesh, place, start_on
from purenets.parallel.rules import DATA_PARALLEL, RESNET_RULES, TRANSFORMER_RULES, Rules, shardings

__all__ = [
    "DATA_PARALLEL",
    "RESNET_RULES",
    "TRANSFORMER_RULES",
    "Placement",
    "Rules",
    "connect",
    "from_processes",
    "mesh",
    "on_mesh",
    "place",
    "shardings",
    "start_on",
]
