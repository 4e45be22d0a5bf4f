"""The gallery of experiments, which is pages of its own: copied as it is, listed, and linked to."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from docutils import nodes
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective
from sphinx.util.osutil import relative_uri

__all__ = ["ExperimentsDirective", "setup"]

DOCS = Path(__file__).parents[1]


class ExperimentsDirective(SphinxDirective):
    """The experiments by topic: each with the first line of its claim, linked to its page."""

    def run(self) -> list[nodes.Node]:
        """Called by Sphinx."""
        from experiments.__main__ import claim_of
        from experiments.gallery import TOPICS

        lines = []
        for topic, names in TOPICS.items():
            lines += [f"## {topic.capitalize()}", ""]
            for name in names.split():
                claim = claim_of(name).split("\n\n")[0].replace("\n", " ")
                lines.append(f"- [{name}](gallery/{name}/index.html): {claim}")
            lines.append("")
        return self.parse_text_to_nodes("\n".join(lines), allow_section_headings=True)


def link(app: Sphinx, doctree: nodes.document) -> None:
    """Turn links to pages of the gallery from downloads, which they are to Sphinx, into links."""
    here = app.env.docname
    for node in list(doctree.findall(addnodes.download_reference)):
        target = os.path.normpath(os.path.join(os.path.dirname(here), node["reftarget"].split("#")[0]))
        if target.startswith("gallery" + os.sep) and (DOCS / target).is_file():
            uri = relative_uri(app.builder.get_target_uri(here), target)
            node.replace_self(nodes.reference("", "", *node.children, refuri=uri, internal=True))


def copy(app: Sphinx, error: Exception | None) -> None:
    """Put the gallery beside the pages."""
    if error is None and app.builder.format == "html":
        shutil.copytree(DOCS / "gallery", Path(app.outdir) / "gallery", dirs_exist_ok=True)


def setup(app: Sphinx) -> dict[str, bool]:
    """Add the directive, the links and the pages."""
    app.add_directive("experiments", ExperimentsDirective)
    app.connect("doctree-read", link, priority=100)  # before the downloads are collected
    app.connect("build-finished", copy)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
