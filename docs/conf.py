"""How the documentation is built: ``python -m sphinx -W -b html docs build/docs``.

Pages with code cells begin with ``file_format: mystnb`` and ``kernelspec: {name: python3}``; the cells run while
the site is built, on eight virtual CPU devices and without a network. With ``PURENETS_DOCS_CACHE`` set to a
folder, a page runs again only where its code has changed. Nothing on a page is loaded from elsewhere: formulas
become MathML, which browsers draw themselves.
"""

from __future__ import annotations

import os
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

DOCS = Path(__file__).parent
sys.path.insert(0, str(DOCS / "_ext"))
sys.path.insert(0, str(DOCS.parent))  # the pages use experiments and benchmarks too, which are not installed

# The kernels that run the pages inherit these.
os.environ.setdefault("XLA_FLAGS", "--xla_force_host_platform_device_count=8")
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(DOCS.parent), os.environ.get("PYTHONPATH")]))

project = "purenets"
author = "the authors of purenets"
copyright = "the authors of purenets, Apache 2.0"
release = version = metadata.version("purenets")

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.viewcode",
    "sphinx_design",
    "formulas",
    "gallery_pages",
    "reference",
    "source_pages",
]
exclude_patterns = ["gallery", "_build", "jupyter_execute", "**/.ipynb_checkpoints"]

# Pages
myst_enable_extensions = ["colon_fence", "deflist", "dollarmath", "attrs_inline"]
myst_heading_anchors = 4

# Cells
cache = os.environ.get("PURENETS_DOCS_CACHE")
nb_execution_mode = "cache" if cache else "force"
nb_execution_cache_path = cache or ""
nb_execution_raise_on_error = True
nb_execution_timeout = 300
nb_execution_show_tb = True
nb_execution_in_temp = True
nb_output_stderr = "remove"  # what XLA and progress bars tell a terminal
nb_merge_streams = True
nb_render_markdown_format = "myst"
nb_ipywidgets_js: dict[str, Any] = {}  # these would be loaded from the network

# The reference
add_module_names = False
viewcode_follow_imported_members = False
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
autodoc_default_options = {"no-value": True}
python_maximum_signature_line_length = 88
# Types of other libraries have no page here.
nitpicky = True
nitpick_ignore_regex = [
    ("py:class", r"(?!purenets\.).*"),
    ("py:.*", r"(collections|flax|jax|numpy|optax)\..*|hard_silu"),
]
toc_object_entries_show_parents = "hide"

# Looks
html_theme = "furo"
html_title = f"purenets {version}"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_sourcelink = False
html_show_sphinx = False
html_math_renderer = "mathml"
pygments_style = "friendly"
pygments_dark_style = "native"
