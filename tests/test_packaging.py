"""What users install: the wheel and the source distribution, built and used apart from the checkout."""

import importlib.util
import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

import purenets

ROOT = Path(__file__).parents[1]
PROGRAM = """
import importlib.metadata, jax, purenets as pn
from purenets import losses, optim
assert pn.__version__ == importlib.metadata.version("purenets")
model = pn.models.mlp([2, 3, 2])
step = pn.make_step(pn.supervised(model, losses.softmax_cross_entropy), optim.adam(0.1))
ts = pn.start(model, step.optimizer, jax.random.key(0))
ts, metrics = step(ts, pn.data.moons(jax.random.key(1), 8))
print(pn.__file__, int(ts.step))
"""


def run(*command, **options):
    done = subprocess.run(command, capture_output=True, text=True, check=False, **options)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """The folder with the source distribution and the wheel that was built from it."""
    for needed in ("build", "hatchling"):
        if importlib.util.find_spec(needed) is None:
            pytest.skip(f"{needed} is not installed")
    folder = tmp_path_factory.mktemp("dist")
    # Without --wheel or --sdist the wheel is made from the source distribution, so this tries both.
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", str(folder), str(ROOT))
    return folder


def test_the_wheel_runs_apart_from_the_checkout(built, tmp_path):
    (wheel,) = built.glob("*.whl")
    target = tmp_path / "site"
    run(
        sys.executable, "-m", "pip", "install", "--no-deps", "--no-index", "--target", str(target), str(wheel)
    )
    environment = {**os.environ, "PYTHONPATH": str(target)}
    file, steps = run(sys.executable, "-c", PROGRAM, cwd=tmp_path, env=environment).split()
    assert Path(file).is_relative_to(target)
    assert steps == "1"


def test_the_wheel_has_every_module_the_type_marker_and_nothing_else(built):
    (wheel,) = built.glob("*.whl")
    assert purenets.__version__ in wheel.name
    names = set(zipfile.ZipFile(wheel).namelist())
    package = ROOT / "purenets"
    wanted = {f"purenets/{path.relative_to(package)}" for path in package.rglob("*.py")} | {
        "purenets/py.typed"
    }
    info = {name for name in names if ".dist-info/" in name}
    assert names - info == wanted
    assert any(name.endswith("licenses/LICENSE") for name in info)


def test_the_source_distribution_has_tests_experiments_and_changelog(built):
    (source,) = built.glob("*.tar.gz")
    with tarfile.open(source) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    for wanted in (
        "tests/conftest.py",
        "experiments/xor.py",
        "benchmarks/run.py",
        "CHANGELOG.md",
        "README.md",
    ):
        assert wanted in names


def test_the_changelog_has_the_version():
    assert f"## {purenets.__version__}" in (ROOT / "CHANGELOG.md").read_text()
