"""How every test runs: typed keys checked for reuse, eight virtual devices, one compilation cache, compiled quickly.

Most tests compile a small program for longer than they run it, and most of that time is LLVM's. So their programs
are compiled without LLVM's optimiser; the passes of XLA, fusion among them, all run. What is compiled as users have
it is in :data:`FULLY_OPTIMIZED`. With ``JAX_DISABLE_MOST_OPTIMIZATIONS=0`` in the environment every test is.
"""

import os
from pathlib import Path

import jax
import pytest

jax.config.update("jax_num_cpu_devices", 8)
jax.config.update("jax_debug_key_reuse", True)
jax.config.update("jax_compilation_cache_dir", str(Path(__file__).parents[1] / ".pytest_cache" / "jax"))
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)

TESTS = Path(__file__).parent
# Rules held to the last digits, whole training steps, speed, and a module whose programs run for long.
FULLY_OPTIMIZED = (
    "benchmarks",
    "conform",
    "experiments/test_first.py",
    "optim",
    "parallel",
    "theory",
    "train",
)


def compile_as(quickly):
    """Whether LLVM's optimiser is left out, unless the environment says so already."""
    if "JAX_DISABLE_MOST_OPTIMIZATIONS" not in os.environ:
        jax.config.update("jax_disable_most_optimizations", quickly)


@pytest.fixture(autouse=True, scope="module")
def compiled(request):
    """Compile a module's programs quickly, or fully, and let go of them when it is done: they fill the memory."""
    compile_as(quickly=not any(request.path.is_relative_to(TESTS / place) for place in FULLY_OPTIMIZED))
    yield
    jax.clear_caches()
    compile_as(quickly=False)


@pytest.fixture
def compile_fully():
    """For one test whose programs run for long, in a module that compiles quickly."""
    compile_as(quickly=False)
    yield
    compile_as(quickly=True)


@pytest.fixture
def x64():
    """Run the test with float64 enabled; oracles are compared at 1e-10 and closer."""
    with jax.enable_x64(True):
        yield


@pytest.fixture
def real_data():
    """The folder of real data sets, or a skip where it is not set."""
    folder = os.environ.get("PURENETS_DATA")
    if not folder:
        pytest.skip("PURENETS_DATA is not set")
    return Path(folder)
