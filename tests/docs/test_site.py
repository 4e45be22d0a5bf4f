"""The documentation as it is built: without a warning, every cell run, every link whole, sound in a browser.

One build serves all of these tests, in whichever worker they run.
"""

import fcntl
import functools
import importlib
import importlib.util
import os
import pkgutil
import re
import subprocess
import sys
import urllib.parse
import zlib
from html import unescape
from pathlib import Path

import pytest

import purenets
from purenets import conform
from tests.browser import Browser, assert_sound, needs_browser

ROOT = Path(__file__).parents[2]
NEEDED = ("sphinx", "myst_nb", "furo", "sphinx_design", "ipykernel")
LACKING = [name for name in NEEDED if importlib.util.find_spec(name) is None]
pytestmark = pytest.mark.skipif(bool(LACKING), reason=f"the extra docs is not installed: {LACKING}")


def build(folder):
    """The whole site, as a reader would build it; the log is written last."""
    cache = ROOT / ".pytest_cache" / "jax"
    environment = {
        **os.environ,
        "JAX_PLATFORMS": "cpu",
        "JAX_COMPILATION_CACHE_DIR": str(cache),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.2",
        # The cells compile for longer than they run.
        "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",
    }
    environment.pop("PURENETS_DOCS_CACHE", None)
    environment.pop("XLA_FLAGS", None)
    command = [
        sys.executable,
        "-m",
        "sphinx",
        "-W",
        "--keep-going",
        "-b",
        "html",
        ROOT / "docs",
        folder / "html",
    ]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    (folder / "log").write_text(f"{done.returncode}\n{done.stdout}\n{done.stderr}")


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The folder of the pages, built once for all workers of a run."""
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "site"
    folder.mkdir(exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "log").exists():
            build(folder)
    return folder / "html"


@pytest.fixture(scope="module")
def pages(site):
    """The pages of the site, without those of source code."""
    found = [page for page in sorted(site.rglob("*.html")) if page.relative_to(site).parts[0] != "_modules"]
    return [page for page in found if page.relative_to(site).parts[0] != "gallery"]


def test_it_builds_without_a_warning(site):
    code, _, log = (site.parent / "log").read_text().partition("\n")
    plain = re.sub(r"\x1b\[[0-9;]*m", "", log).splitlines()
    told = [line for line in plain if re.search(r"WARNING:|ERROR:|^\w*Error", line.strip())]
    assert code == "0", "\n".join(told or plain[-40:])


def test_every_page_is_there(site):
    sources = [path.relative_to(ROOT / "docs") for path in (ROOT / "docs").rglob("*.md")]
    assert [str(path) for path in sources if not (site / path.with_suffix(".html")).is_file()] == []
    assert (site / "gallery" / "index.html").read_bytes() == (ROOT / "docs/gallery/index.html").read_bytes()


def test_only_the_page_of_errors_has_errors_and_there_each_cell_that_is_said_to(site, pages):
    errors = {page.stem: page.read_text().count('class="output traceback') for page in pages}
    meant = (ROOT / "docs" / "errors.md").read_text().count(":tags: [raises-exception]")
    assert {name: count for name, count in errors.items() if count} == {"errors": meant}


@pytest.mark.parametrize(
    "message",
    [
        "ValueError: dense(46, 16) needs a last axis of 46, got float32[32, 64]\nat blocks/body/down (dense(46, 16))",
        "the channels seem to come first: jnp.moveaxis(x, 1, -1)",
        "dropout(0.5) is random in training and got no key",
        "pattern 'haed/*' matches no leaf; there are: stem/kernel, stem/bias, blocks/",
        "not finite in step 0: gradient out/bias, float32[1] has 1 infinite of 1",
        "batch/0 was float32[8, 2], is float32[5, 2]",
        "hidden/kernel: float32[2, 4] wanted, missing",
        "is damaged or no safetensors file",
        "the checkpoint after 2 epochs in",
        "no whole checkpoint in",
        "mnist needs the file train-images-idx3-ubyte.gz",
        "has the ids 0 to 64, got 99 in the prompt",
    ],
    ids=lambda message: message[:24],
)
def test_the_page_of_errors_shows_what_a_user_meets(site, message):
    assert message in text_of(site / "errors.html")


def test_the_page_of_the_design_has_every_law_of_the_kit(site):
    laws = [*conform.LAYER_LAWS, *conform.LAWS, *conform.TRAITS]
    assert [law for law in laws if law not in text_of(site / "design.html")] == []


@functools.cache
def text_of(page):
    return unescape(re.sub(r"<[^>]*>", "", page.read_text()))


def test_every_link_inside_resolves_to_a_page_and_a_place_on_it(site):
    everything = {page: page.read_text() for page in site.rglob("*.html")}
    places = {page: set(re.findall(r'\b(?:id|name)="([^"]+)"', text)) for page, text in everything.items()}
    broken = []
    for page, text in everything.items():
        for link in set(re.findall(r'\b(?:href|src)="([^"]*)"', text)):
            url = urllib.parse.urlsplit(unescape(link))
            if url.scheme or url.netloc:
                continue
            path = urllib.parse.unquote(url.path)
            target = Path(os.path.normpath(page.parent / path)) if path else page
            if not target.exists():
                broken.append(f"{page.relative_to(site)}: {link}")
            elif url.fragment and urllib.parse.unquote(url.fragment) not in places.get(target, url.fragment):
                broken.append(f"{page.relative_to(site)}: no such place {link}")
    assert len(everything) > 100
    assert broken == []


@needs_browser
def test_the_pages_are_sound_on_a_phone_and_on_a_desk(pages):
    assert len(pages) > 30
    with Browser() as browser:
        for page in pages:
            assert_sound(browser, page)


def documented(site):
    """The names that have a place in the reference, from the inventory that Sphinx writes (version 2)."""
    *_, packed = (site / "objects.inv").read_bytes().split(b"\n", 4)
    lines = zlib.decompress(packed).decode().splitlines()
    return {line.split()[0] for line in lines if line.split()[1].startswith("py:")}


def test_every_public_name_is_in_the_reference(site):
    there = documented(site)
    names = [info.name for info in pkgutil.walk_packages(purenets.__path__, "purenets.")]
    modules = {name: importlib.import_module(name) for name in names if not name.endswith("__main__")}
    modules["purenets"] = purenets
    described = {}
    for full in there:
        module, _, name = full.rpartition(".")
        if module in modules:
            described.setdefault(name, []).append(getattr(modules[module], name))
    lacking = [
        f"{module}.{name}"
        for module, found in modules.items()
        for name in getattr(found, "__all__", ())
        if f"{module}.{name}" not in there
        and not any(getattr(found, name) is other for other in described.get(name, []))
    ]
    assert len(modules) > 150
    assert lacking == []
