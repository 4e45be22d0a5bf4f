"""Rules that translate names: wildcards carry over, and what cannot be meant is refused."""

import pytest

from purenets.rename import rename_all


@pytest.mark.parametrize(
    ("rule", "name", "new"),
    [
        (("encoder/**", "body/**"), "encoder/block/kernel", "body/block/kernel"),
        (("**/gamma", "**/scale"), "a/b/gamma", "a/b/scale"),
        (("**/gamma", "**/scale"), "gamma", "scale"),
        (("h.*.mlp.*", "blocks_*/mlp/*"), "h.11.mlp.weight", "blocks_11/mlp/weight"),
        (("*/{w,b}", "*/{kernel,bias}"), "dense/b", "dense/bias"),
        (("{x,y}.{w,b}", "{left,right}/{kernel,bias}"), "y.w", "right/kernel"),
        (("plain", "other/name"), "plain", "other/name"),
        (("a.b", "c"), "a.b", "c"),
    ],
    ids=lambda value: value[0] if isinstance(value, tuple) else value,
)
def test_a_wildcard_stands_for_the_same_on_both_sides(rule, name, new):
    assert rename_all(dict([rule]), [name]) == {name: new}


def test_a_dot_in_a_pattern_is_a_dot():
    with pytest.raises(ValueError, match="matches no name; there are: a_b"):
        rename_all({"a.b": "c"}, ["a_b"])


def test_the_first_rule_that_matches_wins_and_the_rest_stays():
    rules = {"head/bias": "last/offset", "head/*": "last/*"}
    names = ["head/bias", "head/kernel", "body/kernel"]
    assert rename_all(rules, names) == {
        "head/bias": "last/offset",
        "head/kernel": "last/kernel",
        "body/kernel": "body/kernel",
    }


def test_none_leaves_names_out():
    assert rename_all({"**/mask": None}, ["a/mask", "b"]) == {"a/mask": None, "b": "b"}


def test_several_names_may_be_left_out():
    assert list(rename_all({"*": None}, ["a", "b"]).values()) == [None, None]


def test_wildcards_that_differ_are_refused():
    with pytest.raises(
        ValueError, match=r"'\*/w' to 'kernel' needs the same wildcards on both sides, got \['\*'\]"
    ):
        rename_all({"*/w": "kernel"}, ["a/w"])


def test_lists_of_different_lengths_are_refused():
    with pytest.raises(ValueError, match="the same wildcards on both sides"):
        rename_all({"{a,b,c}": "{x,y}"}, ["a"])


def test_two_names_that_become_one_are_refused():
    with pytest.raises(ValueError, match="'a/w' and 'b/w' both become 'kernel'"):
        rename_all({"a/w": "kernel", "b/w": "kernel"}, ["a/w", "b/w"])


def test_a_rule_that_matches_nothing_is_an_error_that_lists_what_there_is():
    with pytest.raises(ValueError, match="pattern 'decoder/w' matches no name; there are: encoder/w"):
        rename_all({"decoder/w": "x"}, ["encoder/w"])
