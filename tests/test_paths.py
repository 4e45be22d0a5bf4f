"""Paths and patterns: one language for which parameters are meant."""

import jax.numpy as jnp
import pytest
from hypothesis import given
from hypothesis import strategies as st

from purenets import paths

PARAMS = {
    "embed": {"embedding": 0},
    "blocks": {"attention": {"query": {"kernel": 1, "bias": 2}}, "up": {"kernel": 3, "bias": 4}},
    "head": {"kernel": 5},
}


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("**", {"embed/embedding", "blocks/attention/query/kernel", "blocks/attention/query/bias",
                "blocks/up/kernel", "blocks/up/bias", "head/kernel"}),
        ("*/kernel", {"head/kernel"}),
        ("**/kernel", {"blocks/attention/query/kernel", "blocks/up/kernel", "head/kernel"}),
        ("**/up/{kernel,bias}", {"blocks/up/kernel", "blocks/up/bias"}),
        ("blocks/**", {"blocks/attention/query/kernel", "blocks/attention/query/bias", "blocks/up/kernel",
                       "blocks/up/bias"}),
        ("{embed,head}/*", {"embed/embedding", "head/kernel"}),
        ("blocks/**/bias", {"blocks/attention/query/bias", "blocks/up/bias"}),
        ("h*d/kern*", {"head/kernel"}),
        ("{**/query,head}/kernel", {"blocks/attention/query/kernel", "head/kernel"}),
    ],
)  # fmt: skip
def test_a_pattern_takes_exactly_the_paths_it_describes(pattern, expected):
    assert set(paths.matching(pattern, paths.leaf_paths(PARAMS))) == expected


def test_a_pattern_without_match_lists_what_there_is():
    with pytest.raises(ValueError, match=r"'\*\*/kernels' matches no leaf; there are: .*head/kernel"):
        paths.split(PARAMS, "**/kernels")


def test_a_pattern_that_names_a_subtree_says_how_to_take_all_of_it():
    with pytest.raises(ValueError, match="matches no leaf") as caught:
        paths.split(PARAMS, "blocks")
    assert any("'blocks/**'" in note for note in caught.value.__notes__)


@pytest.mark.parametrize(
    ("pattern", "meant"),
    [("haed/**", "head/**"), ("**/kernal", "**/kernel"), ("blocs/*/kernal", "blocks/*/kernel")],
)
def test_a_misspelled_segment_of_a_pattern_is_put_right(pattern, meant):
    with pytest.raises(ValueError, match="matches no leaf") as caught:
        paths.split(PARAMS, pattern)
    assert caught.value.__notes__ == [f"did you mean {meant!r}?"]


@pytest.mark.parametrize("pattern", ["**/gamma", "*/*/*/*/kernel", "{a,b}/kernel"])
def test_a_pattern_that_is_like_nothing_suggests_nothing(pattern):
    with pytest.raises(ValueError, match="matches no leaf") as caught:
        paths.split(PARAMS, pattern)
    assert not hasattr(caught.value, "__notes__")


def test_a_near_miss_suggests_the_name():
    with pytest.raises(ValueError, match="matches no leaf") as caught:
        paths.split(PARAMS, "head/kernal")
    assert any("did you mean 'head/kernel'" in note for note in caught.value.__notes__)


@pytest.mark.parametrize("pattern", ["", "/a", "a//b", "a/", "{a,b", "a}"])
def test_a_broken_pattern_is_refused(pattern):
    with pytest.raises(ValueError, match=r"empty segment|unbalanced brace"):
        paths.path_regex(pattern)


names = st.text("abc", min_size=1, max_size=2)
trees = st.recursive(
    st.integers(), lambda inner: st.dictionaries(names, inner, min_size=1, max_size=3), max_leaves=8
).filter(lambda tree: isinstance(tree, dict))


@given(trees, st.sampled_from(["**", "**/a", "a/**", "*", "{a,b}*/**", "**/{a,c}/*"]))
def test_split_then_merge_is_the_identity(tree, pattern):
    try:
        inside, outside = paths.split(tree, pattern)
    except ValueError:
        assert not any(paths.path_regex(pattern).fullmatch(p) for p in paths.leaf_paths(tree))
        return
    assert paths.merge(inside, outside) == tree
    assert paths.merge(outside, inside) == tree
    assert not set(paths.leaf_paths(inside)) & set(paths.leaf_paths(outside))


@given(trees)
def test_flatten_and_unflatten_are_inverse(tree):
    assert paths.unflatten(paths.flatten(tree)) == tree
    assert set(paths.flatten(tree)) == set(paths.leaf_paths(tree))


def test_merging_trees_that_share_a_leaf_is_refused_by_its_path():
    with pytest.raises(ValueError, match="'a/b' stands in more than one"):
        paths.merge({"a": {"b": 1}}, {"a": {"b": 2}})


def test_a_leaf_that_is_also_a_subtree_is_refused():
    with pytest.raises(ValueError, match="both a leaf and a subtree"):
        paths.unflatten({"a": 1, "a/b": 2})


def test_map_changes_only_what_matches_in_any_pytree():
    tree = {"stack": [jnp.ones(2), {"bias": jnp.zeros(2)}]}
    out = paths.map_matching("**/bias", lambda x: x + 3, tree)
    assert out["stack"][1]["bias"].tolist() == [3, 3]
    assert out["stack"][0].tolist() == [1, 1]


def test_the_first_rule_that_matches_decides():
    rules = [("**/bias", "no decay"), ("blocks/**", "decay"), ("**", "other")]
    assert paths.first_match(rules, "blocks/up/bias") == "no decay"
    assert paths.first_match(rules, "blocks/up/kernel") == "decay"
    assert paths.first_match(rules, "head/kernel") == "other"
    assert paths.first_match([], "head/kernel", "none") == "none"
