"""The gallery that stands in the documentation is whole, of today's experiments, and sound in a browser."""

from pathlib import Path

import pytest

from experiments.__main__ import names
from tests.browser import Browser, assert_sound, needs_browser

GALLERY = Path(__file__).parents[2] / "docs" / "gallery"


def test_it_has_a_page_for_every_experiment_and_none_besides():
    assert sorted(path.parent.name for path in GALLERY.glob("*/index.html")) == names()
    index = (GALLERY / "index.html").read_text()
    assert all(f'href="{name}/index.html"' in index for name in names())
    assert "not run" not in index.split("<section>")[0]


@needs_browser
@pytest.mark.parametrize("part", range(2))
def test_its_pages_are_sound_on_a_phone_and_on_a_desk(part):
    pages = [GALLERY / "index.html", GALLERY / "catalogue.html", *sorted(GALLERY.glob("*/index.html"))]
    with Browser() as browser:
        for page in pages[part::2]:
            assert_sound(browser, page)
