"""The reference, made from the docstrings of the public modules.

A module is *public* where it has ``__all__``. The *home* of a public name is the module that defines it, or, where
that is another library, the first of ours that lists it. Each name is documented once, at home, wherever else it
is exported.
"""

# ruff: noqa: ARG001 (Sphinx calls with more arguments than each function here has a use for)

from __future__ import annotations

import fnmatch
import functools
import importlib
import inspect
import pkgutil
import sys
import types
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.ext.napoleon import Config, GoogleDocstring
from sphinx.pycode import ModuleAnalyzer
from sphinx.util.docutils import SphinxDirective
from sphinx.util.typing import stringify_annotation

__all__ = ["ModulesDirective", "NamesDirective", "home_of", "public_modules", "setup"]


@functools.cache
def public_modules() -> dict[str, list[str]]:
    """Module to its public names, a package after its modules."""
    package = importlib.import_module("purenets")
    found = [info.name for info in pkgutil.walk_packages(package.__path__, "purenets.")]
    modules = [name for name in found if not name.endswith("__main__")] + ["purenets"]
    modules.sort(key=lambda name: (name + ".").split("."), reverse=True)
    return {name: names for name in modules if (names := listed_names(importlib.import_module(name)))}


def listed_names(module: types.ModuleType) -> list[str]:
    """``__all__``; of a package that gathers by ``*``, what it has gathered."""
    if hasattr(module, "__all__"):
        return list(module.__all__)
    names = [name for name in vars(module) if not name.startswith("_")] if hasattr(module, "__path__") else []
    return [name for name in names if not isinstance(getattr(module, name), types.ModuleType)]


def home_of(module: str, name: str) -> str | None:
    """The module in which a public name is documented; None for a module, which has a section of its own."""
    value = getattr(importlib.import_module(module), name)
    if isinstance(value, types.ModuleType):
        return None
    owner = getattr(value, "__module__", None)
    if owner in public_modules() and name in public_modules()[owner]:
        return owner
    holders = [
        other
        for other, names in public_modules().items()
        if name in names and getattr(importlib.import_module(other), name) is value
    ]
    return holders[0]


def first_line(text: str | None) -> str:
    """What a docstring says first, without the full stop."""
    return " ".join(inspect.cleandoc(text or "").split("\n\n")[0].split()).rstrip(".:")


class ModulesDirective(SphinxDirective):
    """A section for each module named; a pattern stands for all that it fits and that are not named before."""

    has_content = True

    def run(self) -> list[nodes.Node]:
        """Called by Sphinx."""
        modules: list[str] = []
        for line in self.content:
            fitting = (
                [line]
                if line in public_modules()
                else [
                    name
                    for name in sorted(public_modules())
                    if fnmatch.fnmatch(name, line)
                    and name.count(".") == line.count(".")
                    and name not in named()
                ]
            )
            if not fitting:
                raise self.error(f"there is no public module {line}")
            modules += [name for name in fitting if name not in modules]
        lines = [line for module in modules for line in section(module)]
        return self.parse_text_to_nodes("\n".join(lines), allow_section_headings=True)


@functools.cache
def named() -> set[str]:
    """The modules that the pages of the reference name in full."""
    pages = (Path(__file__).parents[1] / "api").glob("*.md")
    return {line for page in pages for line in page.read_text().splitlines() if line in public_modules()}


def section(module: str) -> list[str]:
    """The lines that document a module and the names that are at home in it."""
    lines = [f".. automodule:: {module}", ""]
    for name in public_modules()[module]:
        if home_of(module, name) == module:
            value = getattr(importlib.import_module(module), name)
            options = ["   :members:"] if inspect.isclass(value) else []
            lines += [f".. {directive_of(value)}:: {module}.{name}", *options, ""]
    return [f"## {module.removeprefix('purenets.')}", "", "```{eval-rst}", *lines, "```", ""]


def directive_of(value: Any) -> str:
    """The directive of autodoc that documents a value."""
    if inspect.isclass(value):
        return "autoexception" if issubclass(value, Exception) else "autoclass"
    return "autofunction" if inspect.isroutine(value) or hasattr(value, "__wrapped__") else "autodata"


class NamesDirective(SphinxDirective):
    """A table of a module's public names: each with the first line of its docstring, linked to its section."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        """Called by Sphinx."""
        (module,) = self.arguments
        rows = []
        for name in sorted(public_modules()[module], key=str.lower):
            value = getattr(importlib.import_module(module), name)
            home = home_of(module, name)
            target = value.__name__ if home is None else f"{home}.{name}"
            told = value.__doc__
            if home is not None and directive_of(value) == "autodata":
                told = "\n".join(ModuleAnalyzer.for_module(home).find_attr_docs().get(("", name), []))
            rows += [f"   * - :py:obj:`{name} <{target}>`", f"     - {first_line(told)}"]
        table = [".. list-table::", "   :widths: 1 3", "   :class: names", "", *rows]
        return self.parse_text_to_nodes("\n".join(["```{eval-rst}", *table, "```"]))


def qualify(app: Sphinx, doctree: nodes.document) -> None:
    """Look names in types and docstrings up as Python would, in the module where they stand."""
    for node in doctree.findall(addnodes.pending_xref):
        module = sys.modules.get(node.get("py:module") or "")
        target = node["reftarget"].removeprefix("~")
        if module is None or not hasattr(module, target):
            continue
        value = getattr(module, target)
        owner = value.__name__ if isinstance(value, types.ModuleType) else getattr(value, "__module__", None)
        if owner in public_modules() and target in public_modules()[owner]:
            node["reftarget"] = f"{owner}.{target}"


def find_where_it_is(
    app: Sphinx, env: BuildEnvironment, node: addnodes.pending_xref, content: nodes.TextElement
) -> nodes.Node | None:
    """Resolve a reference to a name where it is exported, or to its last part: the nearest of that name."""
    if node.get("refdomain") != "py":
        return None
    domain: Any = env.domains["py"]
    module, _, name = node["reftarget"].removeprefix("~").rpartition(".")
    if name in public_modules().get(module, []):
        found = [f"{home_of(module, name)}.{name}"]
    else:
        ending = "." + node["reftarget"].removeprefix("purenets.").removeprefix("pn.")
        found = [full for full in domain.objects if full.endswith(ending)]
    here = (node.get("py:module") or "purenets").split(".")

    def distance(full: str) -> tuple[int, int]:
        shared = [a == b for a, b in zip(full.split("."), here, strict=False)]
        return -([*shared, False].index(False)), len(full)

    nearest = min((full for full in found if full in domain.objects), key=distance, default=None)
    if nearest is None:
        return None
    entry = domain.objects[nearest]
    uri = f"{app.builder.get_relative_uri(node['refdoc'], entry.docname)}#{entry.node_id}"
    return nodes.reference("", "", content, internal=True, refuri=uri, reftitle=nearest)


def write_signature(
    app: Sphinx, what: str, name: str, value: Any, options: Any, signature: str, result: str
) -> tuple[str, str | None] | None:
    """A signature with its types as they are written in the source, where ``ArrayLike`` is one word."""
    if signature is None or not callable(value):
        return None
    try:
        found = inspect.signature(value)
    except (TypeError, ValueError):
        return None
    given = list(found.parameters.values())
    if what == "method" and given and given[0].name == "self":
        given = given[1:]
    words = [write_parameter(each) for each in given]
    first_named = next((i for i, each in enumerate(given) if each.kind is each.KEYWORD_ONLY), None)
    if first_named is not None and not any(each.kind is each.VAR_POSITIONAL for each in given):
        words.insert(first_named, "*")
    positional = [i for i, each in enumerate(given) if each.kind is each.POSITIONAL_ONLY]
    if positional:
        words.insert(positional[-1] + 1, "/")
    returned = None if inspect.isclass(value) else write_type(found.return_annotation)
    return f"({', '.join(words)})", returned


def write_parameter(parameter: inspect.Parameter) -> str:
    """One parameter of a signature: its stars, name, type and default."""
    stars = {parameter.VAR_POSITIONAL: "*", parameter.VAR_KEYWORD: "**"}.get(parameter.kind, "")
    kind = write_type(parameter.annotation)
    text = f"{stars}{parameter.name}" + (f": {kind}" if kind else "")
    if parameter.default is parameter.empty:
        return text
    default = parameter.default
    shown = default.__name__ if inspect.isroutine(default) or inspect.isclass(default) else repr(default)
    shown = "..." if "<" in shown or len(shown) > 40 else shown
    return text + (f" = {shown}" if kind else f"={shown}")


def write_type(annotation: Any) -> str | None:
    """A type as it is written in the source; None where none is."""
    if annotation is inspect.Parameter.empty:
        return None
    text = annotation if isinstance(annotation, str) else stringify_annotation(annotation, "smart")
    return text.strip("'\"").replace("~", "")


def write_docstring(app: Sphinx, what: str, name: str, value: Any, options: Any, lines: list[str]) -> None:
    """The sections of a docstring as fields; what a constant has from its type is not about the constant."""
    if what in ("data", "attribute"):
        of_type = inspect.cleandoc(type(value).__doc__ or ""), inspect.cleandoc(value.__doc__ or "")
        if "\n".join(lines).strip() in of_type:
            lines.clear()
    if what in ("data", "attribute", "property"):  # one sentence, in which a colon is a colon
        return
    config = Config(napoleon_use_ivar=True, napoleon_use_rtype=False)
    lines[:] = GoogleDocstring(lines, config, app, what, name, value, options).lines()


def skip_noise(app: Sphinx, kind: str, name: str, value: Any, skip: bool, options: Any) -> bool | None:
    """Leave out what Python writes about the fields of named tuples."""
    return True if (getattr(value, "__doc__", None) or "").startswith("Alias for field number") else None


def setup(app: Sphinx) -> dict[str, bool]:
    """Add the directives."""
    app.add_directive("modules", ModulesDirective)
    app.add_directive("names", NamesDirective)
    app.connect("doctree-read", qualify)
    app.connect("missing-reference", find_where_it_is)
    app.connect("autodoc-process-signature", write_signature)
    app.connect("autodoc-process-docstring", write_docstring)
    app.connect("autodoc-skip-member", skip_noise)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
