"""Formulas as MathML, which browsers draw by themselves; docutils makes it from the TeX of the page."""

from __future__ import annotations

import re
from typing import Any

from docutils import nodes
from docutils.writers import _html_base
from sphinx.application import Sphinx

__all__ = ["setup"]

# What docutils does not know or sets badly, in TeX that it sets well.
OTHERWISE = {
    r"\\dots\b": r"\\ldots",
    r"\\(big|Big|bigg|Bigg)(?=[^a-zA-Z])": r"\\\1l",
    # a thin space between a function and its argument
    r"\\(log|ln|exp|sin|cos|tanh|det|max|min)(?:\s+(?=[A-Za-z])|\s*(?=\\(?!left|big|Big)[A-Za-z]))": r"\\\1\\, ",
}


def visit_formula(translator: Any, node: nodes.math | nodes.math_block) -> None:
    """Write a formula in a line."""
    text = node.astext()
    for command, other in OTHERWISE.items():
        text = re.sub(command, other, text)
    node.children = [nodes.Text(text)]
    translator.math_output, translator.math_options = "mathml", ""
    _html_base.HTMLTranslator.visit_math(translator, node)


def visit_formula_block(translator: Any, node: nodes.math_block) -> None:
    """Write a formula on lines of its own; where it is wider than the page, it scrolls alone."""
    translator.body.append(translator.starttag(node, "div", CLASS="formula"))
    try:
        visit_formula(translator, node)
    finally:
        translator.body.append("</div>\n")


def setup(app: Sphinx) -> dict[str, bool]:
    """Add the renderer, which ``html_math_renderer`` names."""
    inline, block = (visit_formula, None), (visit_formula_block, None)
    app.add_html_math_renderer("mathml", inline_renderers=inline, block_renderers=block)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
