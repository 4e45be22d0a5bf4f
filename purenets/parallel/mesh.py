"""A mesh: the devices as an array whose axes have names, ``data`` and ``model`` by custom."""

from __future__ import annotations

import math
from collections.abc import Sequence

import jax
from jax.sharding import AxisType, Mesh

__all__ = ["mesh"]


def mesh(devices: Sequence[jax.Device] | None = None, **axes: int) -> Mesh:
    """The devices with axes of these names and sizes; one size may be -1 for what is left.

    Its axes are of the kind that JAX shards by itself (``AxisType.Auto``).

    Args:
        devices: all of all processes by default.
        axes: name to size, the axis whose neighbours talk most last: ``mesh(data=-1, model=4)``.

    Raises:
        ValueError: there are no axes, two are -1, or the sizes are not those of the devices.

    >>> mesh(data=-1).axis_names
    ('data',)
    """
    found = list(jax.devices() if devices is None else devices)
    if not axes:
        raise ValueError("a mesh needs axes: mesh(data=-1), mesh(data=4, model=2)")
    open_axes = [name for name, size in axes.items() if size == -1]
    known = math.prod(size for size in axes.values() if size != -1)
    if len(open_axes) > 1 or any(size < 1 and size != -1 for size in axes.values()):
        raise ValueError(f"a mesh needs positive sizes, one of which may be -1, got {axes}")
    if open_axes and len(found) % known == 0:
        axes[open_axes[0]] = len(found) // known
    if math.prod(axes.values()) != len(found):
        error = ValueError(f"a mesh of {axes} does not fit {len(found)} devices")
        error.add_note("give the devices to use, mesh(devices=jax.devices()[:4], ...), or let one axis be -1")
        raise error
    kinds = (AxisType.Auto,) * len(axes)
    return jax.make_mesh(tuple(axes.values()), tuple(axes), kinds, devices=found)
