"""What a time was taken on: processor, accelerator and versions."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
from pathlib import Path

import jax

from benchmarks.protocol import LIBRARIES, absent

__all__ = ["environment"]


def _processor() -> str:
    try:
        found = re.search(r"model name\s*:\s*(.+)", Path("/proc/cpuinfo").read_text())
    except OSError:
        found = None
    return found.group(1).strip() if found else platform.processor() or platform.machine()


def environment() -> dict[str, str]:
    """Machine, device and versions."""
    there = {package for name, (_, package) in LIBRARIES.items() if name not in absent()}
    device = jax.devices()[0]
    about = {
        "processor": _processor(),
        "cores": str(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()),
        "device": device.device_kind if device.platform != "cpu" else "cpu",
        "python": platform.python_version(),
    }
    return about | {package: importlib.metadata.version(package) for package in ("jaxlib", *sorted(there))}
