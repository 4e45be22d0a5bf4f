"""torch's names as paths, and maps of names that are ready made.

torch joins names with dots, ``layer1.0.conv1.weight``. Rules speak of them as they are, and in them a dot divides
segments as a slash does in paths: ``*`` is one segment, ``**`` any number. A rule names a *module* or one array of it;
what is below a module goes along. A name that no rule matches keeps its segments: ``encoder.up`` is ``encoder/up``.

===========================  =========================================================================
:data:`LLAMA_NAMES`          Llama's weights at Hugging Face, for :func:`purenets.models.llama`
:func:`resnet_names`         torchvision's ResNets, for :func:`purenets.models.resnet`
:data:`ENCODER_LAYER_NAMES`  ``nn.TransformerEncoderLayer``, for :func:`purenets.models.transformer_block`
:func:`names_below`          a map of names for a module that is inside another
===========================  =========================================================================
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TypeAlias

from purenets.interop.convert import inverse
from purenets.interop.torch_places import below
from purenets.layer import Layer
from purenets.paths import matching, path_regex
from purenets.rename import rename_all

__all__ = [
    "ENCODER_LAYER_NAMES",
    "LLAMA_NAMES",
    "Rename",
    "named_apart",
    "names_below",
    "paths_of_names",
    "paths_of_outputs",
    "resnet_names",
    "torch_names",
]

Rename: TypeAlias = Mapping[str, str | None]
"""Pattern of torch's names to paths; ``None`` leaves names out."""

ENCODER_LAYER_NAMES: dict[str, str | None] = {
    "self_attn": "attention",
    "linear1": "feed_forward/up",
    "linear2": "feed_forward/down",
    "norm1": "attention_norm",
    "norm2": "feed_forward_norm",
}
"""From ``nn.TransformerEncoderLayer`` to ``transformer_block(dim, attention(dim, heads), feed_forward(dim, hidden,
activation=jax.nn.relu), pre_norm=False, norm=partial(layer_norm, eps=1e-5))``, which has the defaults of torch's;
``pre_norm`` is its ``norm_first``."""


LLAMA_NAMES: dict[str, str | None] = {
    "model.embed_tokens": "embed",
    "model.layers.*.input_layernorm": "blocks/*/attention_norm",
    "model.layers.*.self_attn.{q,k,v,o}_proj": "blocks/*/attention/{query,key,value,out}",
    "model.layers.*.post_attention_layernorm": "blocks/*/feed_forward_norm",
    "model.layers.*.mlp.{gate,up,down}_proj": "blocks/*/feed_forward/{gate,up,down}",
    "model.norm": "norm",
    "lm_head": "head",
}
"""From the names of Llama's weights at Hugging Face to the paths of :func:`purenets.models.llama`."""


def paths_of_names(rename: Rename | None, names: Iterable[str]) -> dict[str, str | None]:
    """Every name of torch, of a module or an array, to its path.

    Raises:
        ValueError: a rule matches no name, its sides have different wildcards, or two names become the same.

    >>> paths_of_names({"fc{1,2}": "{up,down}", "old": None}, ["fc1.weight", "fc2.weight", "old.bias", "norm.bias"])
    {'fc1.weight': 'up/weight', 'fc2.weight': 'down/weight', 'old.bias': None, 'norm.bias': 'norm/bias'}
    """
    slashed = {name.replace(".", "/"): name for name in names}
    rules = {old.replace(".", "/"): new for old, new in (rename or {}).items()}
    return {slashed[name]: path for name, path in _renamed(rules, slashed).items()}


def paths_of_outputs(rename: Rename | None, modules: Iterable[str]) -> dict[str, str]:
    """Every module to the path of its layer; rules that match none, such as those of arrays, are passed over.

    >>> paths_of_outputs({"fc": "head", "bn1": "norm"}, ["", "fc"])
    {'': '', 'fc': 'head'}
    """
    names = {name: name.replace(".", "/") for name in modules}
    inner = [name for name in names.values() if name]
    rules = {old.replace(".", "/"): new for old, new in (rename or {}).items()}
    used = {
        old: new for old, new in rules.items() if any(_matches(each, inner) for each in (old, f"{old}/**"))
    }
    paths = {"": "", **_renamed(used, inner)}
    return {name: path for name, slashed in names.items() if (path := paths[slashed]) is not None}


def torch_names(rename: Rename | None, paths: Iterable[str]) -> dict[str, str]:
    """Every path to its name in torch: the way back. What the rules leave out does not come back.

    Raises:
        ValueError: as :func:`paths_of_names`; or two rules lead to one path.
    """
    rules = inverse({old.replace(".", "/"): new for old, new in (rename or {}).items() if new is not None})
    return {path: str(name).replace("/", ".") for path, name in _renamed(rules, list(paths)).items()}


def named_apart(rename: Rename | None, paths: Iterable[str]) -> set[str]:
    """Those of the arrays that a rule leads to by their own name or that of their layer, not by a wildcard alone.

    >>> sorted(named_apart({"q_proj": "query", "net.**": "**"}, ["query/weight", "out/weight"]))
    ['query/weight']
    """
    ends = [new for new in (rename or {}).values() if new and new.rpartition("/")[2].strip("*")]
    regexes = [path_regex(new) for new in ends]
    return {
        path
        for path in paths
        if any(regex.fullmatch(path) or regex.fullmatch(path.rpartition("/")[0]) for regex in regexes)
    }


def _renamed(rules: Rename, names: Iterable[str]) -> dict[str, str | None]:
    names = list(names)
    whole: dict[str, str | None] = {}
    for old, new in rules.items():
        both = (
            {old: new}
            if old.endswith("**")
            else {old: new, f"{old}/**": None if new is None else f"{new}/**"}
        )
        fitting = {pattern: path for pattern, path in both.items() if _matches(pattern, names)}
        if not fitting:
            heads = dict.fromkeys(
                "/".join(name.split("/")[:i]) for name in names for i in range(1, name.count("/") + 2)
            )
            matching(old, heads, kind="module or array")
        whole |= fitting
    return rename_all(whole, names)


def _matches(pattern: str, names: list[str]) -> bool:
    regex = path_regex(pattern)
    return any(regex.fullmatch(name) for name in names)


def names_below(rename: Rename, module: str, path: str) -> dict[str, str | None]:
    """The map for a module that is inside another, or for several that are numbered.

    >>> names_below({"linear1": "feed_forward/up"}, "layers.*", "blocks/*")
    {'layers.*.linear1': 'blocks/*/feed_forward/up'}
    """
    return {f"{module}.{old}": None if new is None else below(path, new) for old, new in rename.items()}


def resnet_names(model: Layer) -> dict[str, str | None]:
    """From torchvision's names of a ResNet, ``layer1.0.conv1``, to the paths of :func:`purenets.models.resnet`.

    Args:
        model: the network, with basic blocks or bottlenecks, its stages as loops or not.

    Raises:
        ValueError: it has no stages.
    """
    stages = [name for name in model.parts if name.startswith("stage_")]
    if not stages:
        raise ValueError(
            f"resnet_names needs a model of resnet, with parts stage_1, ..., got {list(model.parts)}"
        )
    rules: dict[str, str | None] = {"conv1": "stem", "bn1": "norm", "fc": "head"}
    for i, stage in enumerate(stages, 1):
        blocks = dict(model.parts[stage].parts)
        rest = blocks.pop("rest", None)
        rules |= _blocks(f"layer{i}", stage, list(blocks), blocks["first"], 0)
        if rest is not None:
            count = int(rest.label.rpartition(", ")[2][:-1])
            rules |= _blocks(f"layer{i}", f"{stage}/rest", [str(n) for n in range(count)], rest, 1)
    return rules


def _blocks(module: str, path: str, names: list[str], block: Layer, first: int) -> dict[str, str | None]:
    """The rules for equal blocks, the first of which is the ``first`` of the module."""
    numbers, names_here = (
        "{" + ",".join(map(str, given)) + "}" for given in (range(first, first + len(names)), names)
    )
    joined = block.parts["joined"]
    count = sum(name.startswith("conv_") for name in joined.parts["body"].parts)
    within = "{" + ",".join(map(str, range(1, count + 1))) + "}"
    rules: dict[str, str | None] = {
        f"{module}.{numbers}.{{conv,bn}}{within}": f"{path}/{names_here}/joined/body/{{conv,norm}}_{within}"
    }
    if joined.parts["skip"].parts:
        rules[f"{module}.{first}.downsample.{{0,1}}"] = f"{path}/{names[0]}/joined/skip/{{conv,norm}}"
    return {**rules, f"{module}.{numbers}": f"{path}/{names_here}"}
