"""Names in one convention as names in another, by rules in the pattern language of paths.

A *rule* is an old pattern and the new name that it becomes. What the wildcards of the pattern match is put in for those
of the new name, in order: ``encoder/**`` to ``body/**``. Of two lists ``{weight,bias}`` and ``{kernel,bias}`` the
entries correspond. Names need not be paths: in ``h.*.mlp.weight`` the ``*`` stands for any run without a slash.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from purenets.paths import matching

__all__ = ["rename_all"]

_TOKEN = re.compile(r"(?<![^/])\*\*/|\*\*|\*|\{[^{}]*\}|[^*{}]+")
_MATCHES = {"**/": "((?:[^/]+/)*)", "**": "(.*)", "*": "([^/]*)"}


class _Rule(NamedTuple):
    regex: re.Pattern[str]
    wildcards: list[str]
    new: str | None


def rename_all(rules: Mapping[str, str | None], names: Iterable[str]) -> dict[str, str | None]:
    """Every name to what the first rule that matches it makes of it; a name that none matches stays.

    Args:
        rules: old pattern to new name; ``None`` leaves the matching names out.
        names: the names to translate.

    Raises:
        ValueError: a rule matches no name, its sides have different wildcards, or two names become the same.

    >>> rename_all({"net.*.{weight,bias}": "dense_*/{kernel,bias}", "step": None}, ["net.0.weight", "step"])
    {'net.0.weight': 'dense_0/kernel', 'step': None}
    """
    names = list(names)
    matching(tuple(rules), names, kind="name")
    compiled = [_rule(old, new) for old, new in rules.items()]
    renamed = {name: _renamed(compiled, name) for name in names}
    taken: dict[str, str] = {}
    for old, new in renamed.items():
        if new in taken:
            raise ValueError(
                f"{taken[new]!r} and {old!r} both become {new!r}: the rules must keep them apart"
            )
        if new is not None:
            taken[new] = old
    return renamed


def _rule(old: str, new: str | None) -> _Rule:
    wildcards = [token for token in _TOKEN.findall(old) if token[0] in "*{"]
    if new is not None:
        there = [token for token in _TOKEN.findall(new) if token[0] in "*{"]
        if list(map(_kind, wildcards)) != list(map(_kind, there)):
            raise ValueError(
                f"the rule {old!r} to {new!r} needs the same wildcards on both sides, "
                f"got {wildcards} and {there}"
            )
    return _Rule(re.compile("".join(map(_regex, _TOKEN.findall(old)))), wildcards, new)


def _kind(token: str) -> str:
    return token if token[0] == "*" else f"a list of {token.count(',') + 1}"


def _regex(token: str) -> str:
    if token[0] == "{":
        return "(" + "|".join(map(re.escape, _entries(token))) + ")"
    return _MATCHES.get(token) or re.escape(token)


def _entries(token: str) -> list[str]:
    return token[1:-1].split(",")


def _renamed(rules: list[_Rule], name: str) -> str | None:
    for rule in rules:
        if found := rule.regex.fullmatch(name):
            return None if rule.new is None else _filled(rule, rule.new, found.groups())
    return name


def _filled(rule: _Rule, new: str, matched: tuple[str, ...]) -> str:
    values = iter(zip(rule.wildcards, matched, strict=True))
    out = []
    for token in _TOKEN.findall(new):
        if token[0] == "*":
            out.append(next(values)[1])
        elif token[0] == "{":
            wildcard, value = next(values)
            out.append(_entries(token)[_entries(wildcard).index(value)])
        else:
            out.append(token)
    return "".join(out)
