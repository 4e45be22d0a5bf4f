"""The pages for users of other libraries: their code runs, and what they call the same gives the same numbers.

The blocks of a page run from top to bottom in one module. A page compares in its own code where a reader wants to
see it, and otherwise in comments that a browser does not show, ``<!-- check ... -->``, which run in their places.
These have one name more, :func:`same`.
"""

import importlib
import importlib.util
import re
import sys
import types
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import purenets as pn

PAGES = Path(__file__).parents[2] / "docs" / "coming_from"
LIBRARIES = {"equinox": "equinox", "flax": "flax", "haiku": "haiku", "pytorch": "torch", "stax": "jax"}
NAMES = sorted(page.stem for page in PAGES.glob("*.md"))
CODE = re.compile(r"^```python\n(.*?)^```|^<!-- check\n(.*?)^-->", re.DOTALL | re.MULTILINE)


def same(ours, theirs, rtol=1e-5, atol=1e-6):
    """Trees of one form whose numbers agree, in shape and dtype too."""
    assert jax.tree.structure(ours) == jax.tree.structure(theirs)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(
            np.asarray(a), np.asarray(b), rtol=rtol, atol=atol, strict=True
        ),
        ours,
        theirs,
    )


def pieces(text):
    """Each piece of code on a page and the number of lines before it."""
    for found in CODE.finditer(text):
        which = 1 if found[1] is not None else 2
        yield found[which], text.count("\n", 0, found.start(which))


@pytest.fixture
def keep_small_programs():
    """A page is some hundred small programs, and its time that of compiling them."""
    before = jax.config.jax_persistent_cache_min_compile_time_secs
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    yield
    jax.config.update("jax_persistent_cache_min_compile_time_secs", before)


@pytest.mark.parametrize("name", NAMES)
def test_the_code_of_a_page_runs_and_both_sides_agree(name, monkeypatch, keep_small_programs):
    if importlib.util.find_spec(LIBRARIES[name]) is None:
        pytest.skip(f"{LIBRARIES[name]} is not installed")
    page = PAGES / f"{name}.md"
    module = types.ModuleType(f"coming_from_{name}")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    module.same = same
    for code, before in pieces(page.read_text()):
        # The lines before it, empty, so that a traceback has the page's own lines.
        exec(compile("\n" * before + code, str(page), "exec"), vars(module))


@pytest.mark.parametrize("name", NAMES)
def test_every_section_with_code_compares_something(name):
    _, *sections = re.split(r"^## ", (PAGES / f"{name}.md").read_text(), flags=re.MULTILINE)
    assert len(sections) >= 5
    for section in sections:
        code = "".join(code for code, _ in pieces(section))
        assert not code or re.search(r"^ *(assert |agree\(|same\(|np\.testing\.)", code, re.MULTILINE), (
            section[:80]
        )


@pytest.mark.parametrize("name", NAMES)
def test_every_name_of_ours_on_a_page_is_there(name):
    """In tables and sentences too."""
    ours = {"pn": pn} | {
        part: importlib.import_module(f"purenets.{part}")
        for part in ("data", "interop", "losses", "models", "optim", "parallel")
    }
    found = re.findall(
        rf"(?<![\w.])({'|'.join(ours)})((?:\.[a-z_0-9]+)+)", (PAGES / f"{name}.md").read_text(), re.I
    )
    assert len(found) > 20
    missing = []
    for module, names in found:
        value = ours[module]
        for part in names[1:].split("."):
            if not hasattr(value, part):
                missing.append(module + names)
                break
            value = getattr(value, part)
    assert not missing


def test_every_page_is_one_of_a_known_library():
    assert {*NAMES} == {*LIBRARIES}


def test_a_page_whose_sides_differ_would_fail():
    with pytest.raises(AssertionError):
        same({"a": jnp.ones(3)}, {"a": jnp.ones(3) + 1e-4})
    with pytest.raises(AssertionError):
        same({"a": jnp.ones(3)}, {"b": jnp.ones(3)})
    with pytest.raises(AssertionError):
        same(jnp.ones((1, 3)), jnp.ones(3))
