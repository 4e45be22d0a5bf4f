"""Everything is found by its path, and one pattern language says which.

A *path* is the slash-joined name of a leaf, ``blocks/attention/query/kernel``; for any pytree it is
``jax.tree_util.keystr(path, simple=True, separator="/")``.

A *pattern* matches whole paths:

=========  ==========================================================
``*``      any run of characters inside one segment
``**``     any run of segments; ``**/`` also matches nothing at all
``{a,b}``  either ``a`` or ``b``; each may be a pattern
=========  ==========================================================

A :data:`Where` is one pattern or a sequence of them, read as *any of these*. A pattern that matches nothing
is an error that lists what there is, because a typing mistake in a pattern would otherwise freeze, decay or
shard nothing at all, silently.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any, TypeAlias

import jax

__all__ = [
    "Where",
    "explain_match",
    "first_match",
    "flatten",
    "leaf_paths",
    "map_matching",
    "matching",
    "merge",
    "path_of",
    "path_regex",
    "split",
    "unflatten",
]

Where: TypeAlias = str | Sequence[str]
"""One pattern, or several of which any may match."""

Tree: TypeAlias = dict[str, Any]


@lru_cache(maxsize=4096)
def path_regex(pattern: str) -> re.Pattern[str]:
    """The compiled regular expression of a pattern, for whole-path matching.

    Raises:
        ValueError: the pattern is empty, has an empty segment or an unbalanced brace.

    >>> bool(path_regex("**/kernel").fullmatch("kernel"))
    True
    >>> bool(path_regex("*/{kernel,bias}").fullmatch("dense_1/bias"))
    True
    >>> bool(path_regex("*").fullmatch("dense_1/bias"))
    False
    """
    if not pattern or pattern.startswith("/") or pattern.endswith("/") or "//" in pattern:
        raise ValueError(f"pattern {pattern!r} is empty or has an empty segment")
    out, depth, i = [], 0, 0
    while i < len(pattern):
        if pattern.startswith("**/", i) and (i == 0 or pattern[i - 1] in "/{,"):
            out.append("(?:[^/]+/)*")
            i += 3
            continue
        if pattern.startswith("/**", i) and i + 3 == len(pattern):
            out.append("/.+")
            i += 3
            continue
        if pattern.startswith("**", i):
            out.append(".*")
            i += 2
            continue
        char = pattern[i]
        if char == "*":
            out.append("[^/]*")
        elif char == "{":
            depth += 1
            out.append("(?:")
        elif char == "}":
            depth -= 1
            out.append(")")
        elif char == "," and depth > 0:
            out.append("|")
        else:
            out.append(re.escape(char))
        if depth < 0:
            break
        i += 1
    if depth != 0:
        raise ValueError(f"pattern {pattern!r} has an unbalanced brace")
    return re.compile("".join(out))


def path_of(key_path: Any) -> str:
    """The slash-joined name of a ``jax.tree_util`` key path."""
    return jax.tree_util.keystr(key_path, simple=True, separator="/")


def leaf_paths(tree: Any) -> list[str]:
    """The path of every leaf of any pytree, in flattening order.

    >>> leaf_paths({"dense": {"kernel": 1.0, "bias": 0.0}})
    ['dense/bias', 'dense/kernel']
    """
    return [path_of(path) for path, _ in jax.tree_util.tree_flatten_with_path(tree)[0]]


def _patterns(where: Where) -> tuple[str, ...]:
    return (where,) if isinstance(where, str) else tuple(where)


def _nothing(pattern: str, names: Sequence[str], kind: str) -> ValueError:
    listed = ", ".join(names[:40]) + (f", … ({len(names)} in all)" if len(names) > 40 else "")
    error = ValueError(f"pattern {pattern!r} matches no {kind}; there are: {listed or 'none'}")
    if any(path_regex(pattern + "/**").fullmatch(name) for name in names):
        error.add_note(f"{pattern!r} names a subtree: for all of it write {pattern + '/**'!r}")
    elif close := _alike(pattern, names):
        error.add_note("did you mean " + " or ".join(repr(name) for name in close) + "?")
    return error


def _alike(pattern: str, names: Sequence[str]) -> list[str]:
    """The names that are like the pattern; of one with wildcards, itself with unknown segments put right."""
    if not set(pattern) & set("*{"):
        return difflib.get_close_matches(pattern, names, n=3, cutoff=0.7)
    known = {segment for name in names for segment in name.split("/")}
    segments = [
        segment
        if segment in known or set(segment) & set("*{,}")
        else next(iter(difflib.get_close_matches(segment, known, n=1)), segment)
        for segment in pattern.split("/")
    ]
    spelled = "/".join(segments)
    return [spelled] if any(path_regex(spelled).fullmatch(name) for name in names) else []


def matching(where: Where, names: Iterable[str], kind: str = "leaf") -> list[str]:
    """The names that any of the patterns matches, in their own order.

    Raises:
        ValueError: one of the patterns matches none of them; the message lists what there is.

    >>> matching("**/bias", ["a/kernel", "a/bias", "bias"])
    ['a/bias', 'bias']
    """
    names = list(names)
    found: set[str] = set()
    for pattern in _patterns(where):
        regex = path_regex(pattern)
        hits = [name for name in names if regex.fullmatch(name)]
        # "**" asks for all there is, which of an empty tree is nothing.
        if not hits and pattern != "**":
            raise _nothing(pattern, names, kind)
        found.update(hits)
    return [name for name in names if name in found]


def first_match(rules: Mapping[str, Any] | Sequence[tuple[str, Any]], path: str, default: Any = None) -> Any:
    """The value of the first rule whose pattern matches the path, or ``default``.

    >>> first_match({"**/bias": 0.0, "**": 1.0}, "dense/bias")
    0.0
    """
    for pattern, value in rules.items() if isinstance(rules, Mapping) else rules:
        if path_regex(pattern).fullmatch(path):
            return value
    return default


def map_matching(where: Where, fn: Callable[[Any], Any], tree: Any) -> Any:
    """The tree with ``fn`` applied to the matching leaves and the others as they were.

    Raises:
        ValueError: a pattern matches no leaf.

    >>> map_matching("**/bias", lambda x: x + 1, {"a": {"bias": 0, "kernel": 5}})
    {'a': {'bias': 1, 'kernel': 5}}
    """
    chosen = set(matching(where, leaf_paths(tree)))
    return jax.tree_util.tree_map_with_path(
        lambda path, leaf: fn(leaf) if path_of(path) in chosen else leaf, tree
    )


def flatten(tree: Tree) -> dict[str, Any]:
    """A nested dict as a flat one, path to leaf.

    >>> flatten({"a": {"b": 1}, "c": 2})
    {'a/b': 1, 'c': 2}
    """
    flat: dict[str, Any] = {}
    for name, value in tree.items():
        if isinstance(value, dict):
            flat.update({f"{name}/{rest}": leaf for rest, leaf in flatten(value).items()})
        else:
            flat[name] = value
    return flat


def unflatten(flat: Mapping[str, Any]) -> Tree:
    """The nested dict of a flat one; the inverse of :func:`flatten`.

    Raises:
        ValueError: one path is both a leaf and a subtree.

    >>> unflatten({"a/b": 1, "c": 2})
    {'a': {'b': 1}, 'c': 2}
    """
    tree: Tree = {}
    for path, leaf in flat.items():
        *parents, last = path.split("/")
        node = tree
        for depth, name in enumerate(parents):
            node = node.setdefault(name, {})
            if not isinstance(node, dict):
                raise ValueError(f"{'/'.join(parents[: depth + 1])!r} is both a leaf and a subtree")
        if last in node:
            raise ValueError(f"{path!r} is both a leaf and a subtree")
        node[last] = leaf
    return tree


def split(tree: Tree, where: Where) -> tuple[Tree, Tree]:
    """The leaves that match, and the rest, each as a smaller nested dict; :func:`merge` undoes it.

    Raises:
        ValueError: a pattern matches no leaf.

    >>> split({"a": {"kernel": 1, "bias": 2}}, "**/kernel")
    ({'a': {'kernel': 1}}, {'a': {'bias': 2}})
    """
    flat = flatten(tree)
    chosen = set(matching(where, flat))
    inside = {path: leaf for path, leaf in flat.items() if path in chosen}
    outside = {path: leaf for path, leaf in flat.items() if path not in chosen}
    return unflatten(inside), unflatten(outside)


def merge(*trees: Tree) -> Tree:
    """One nested dict of several that share no leaf.

    Raises:
        ValueError: a path stands in two of the trees, or is a leaf in one and a subtree in another.

    >>> merge({"a": {"kernel": 1}}, {"a": {"bias": 2}})
    {'a': {'kernel': 1, 'bias': 2}}
    """
    out: Tree = {}
    for tree in trees:
        _merge_into(out, tree, "")
    return out


def _merge_into(out: Tree, tree: Tree, prefix: str) -> None:
    for name, value in tree.items():
        if name not in out:
            out[name] = merge(value) if isinstance(value, dict) else value
        elif isinstance(out[name], dict) and isinstance(value, dict):
            _merge_into(out[name], value, f"{prefix}{name}/")
        else:
            raise ValueError(f"cannot merge: {prefix + name!r} stands in more than one of the trees")


def explain_match(where: Where, tree: Any) -> str:
    """A table of every leaf path and the first pattern that takes it, for printing.

    >>> print(explain_match(["**/bias"], {"a": {"bias": 0, "kernel": 5}}))
    a/bias    **/bias
    a/kernel  -
    """
    names = leaf_paths(tree)
    matching(where, names)
    rules = [(pattern, pattern) for pattern in _patterns(where)]
    width = max(map(len, names), default=0)
    return "\n".join(f"{name:<{width}}  {first_match(rules, name, '-')}" for name in names)
