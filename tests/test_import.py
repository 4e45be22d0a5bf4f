"""What an import of purenets loads: little more than jax."""

import subprocess
import sys

import pytest

import purenets as pn


def loaded(code):
    """The modules that a new interpreter holds after the code."""
    program = f"{code}\nimport sys\nprint(*sys.modules)"
    return set(
        subprocess.run(
            [sys.executable, "-c", program], capture_output=True, text=True, check=True
        ).stdout.split()
    )


def test_an_import_loads_neither_optax_nor_anything_heavy_besides_jax():
    jax_alone = loaded("import jax")
    beside = loaded("import purenets") - jax_alone
    packages = {name.partition(".")[0] for name in beside}
    assert not packages & {"optax", "rich", "flax", "matplotlib", "sklearn", "scipy", "PIL", "orbax", "grain"}
    assert not {name for name in beside if "pallas" in name}
    # Modules cost about the same each, and 1.15 times the time of jax is what the whole may take.
    assert len(beside) < 0.15 * len(jax_alone)


@pytest.mark.parametrize(
    "name",
    ["classic", "conform", "inspect", "interop", "models", "optim", "parallel", "theory", "regularizers"],
)
def test_subpackages_are_loaded_when_named(name):
    code = f"import purenets as pn\nassert 'purenets.{name}' not in __import__('sys').modules\npn.{name}"
    assert f"purenets.{name}" in loaded(code)
    assert name in dir(pn)


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="module 'purenets' has no attribute 'optimizers'"):
        _ = pn.optimizers
