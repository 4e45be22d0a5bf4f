"""What tests of experiments share."""

import jax
import pytest


@pytest.fixture
def compile_quickly():
    """For runs of a few steps, whose time would be mostly that of XLA's optimiser."""
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)
