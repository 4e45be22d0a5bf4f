"""The pages of source code, most of the site: those of one folder share one navigation tree."""

from __future__ import annotations

from functools import partial
from typing import Any

from sphinx.application import Sphinx

__all__ = ["setup"]


def share(
    trees: dict[str, str],
    app: Sphinx,
    pagename: str,
    templatename: str,
    context: dict[str, Any],
    doctree: Any,
) -> None:
    """Give a page the tree that another one of its folder was given: its links are the same from there.

    To make the tree anew for each page would take half of the time of the whole site.
    """
    del app, templatename, doctree
    folder = pagename.rpartition("/")[0]
    made = context.get("toctree")
    if not folder.startswith("_modules") or made is None:
        return

    def toctree(**how: Any) -> str:
        if folder not in trees:
            trees[folder] = made(**how)
        return trees[folder]

    context["toctree"] = toctree


def setup(app: Sphinx) -> dict[str, bool]:
    """Called by Sphinx."""
    app.connect("html-page-context", partial(share, {}), priority=400)  # before the theme asks for the tree
    return {"parallel_read_safe": True, "parallel_write_safe": True}
