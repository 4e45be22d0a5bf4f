"""A tree of arrays as a table, and as treescope draws it where it is installed."""

import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import purenets as pn
from purenets.inspect import tree
from purenets.optim import adam, explain

PARAMS = {"dense": {"kernel": jnp.array([[1.0, jnp.nan, 3.0]]), "bias": jnp.zeros(0)}, "count": jnp.int32(7)}


def test_every_leaf_has_its_size_and_the_statistics_of_what_is_finite():
    found = {row.path: row for row in tree(PARAMS).rows}
    kernel = found["dense/kernel"]
    assert (kernel.dtype, kernel.shape, kernel.bytes, kernel.not_finite) == ("float32", (1, 3), 12, 1)
    assert (kernel.mean, kernel.deviation, kernel.min, kernel.max) == (2, 1, 1, 3)
    assert np.isnan(found["dense/bias"].mean)
    assert (found["count"].mean, found["count"].bytes) == (7, 4)


def test_shapes_keys_and_whole_trainings_are_shown_too():
    shapes = tree(jax.eval_shape(pn.dense(2, 3).init, jax.random.key(0)))
    assert [row.path for row in shapes.rows] == ["0/bias", "0/kernel"]
    assert np.isnan(shapes.rows[0].mean)
    model = pn.dense(2, 3)
    ts = pn.start(model, adam(1e-3), jax.random.key(0))
    rows = {row.path: row for row in tree(ts).rows}
    assert rows["key"].dtype == "key<fry>"
    assert rows["params/kernel"].shape == (2, 3)


def test_the_table_ends_in_the_sum_of_bytes():
    lines = str(tree(PARAMS)).splitlines()
    assert [line.split()[0] for line in lines[2:]] == ["count", "dense/bias", "dense/kernel", "(all)"]
    assert lines[-1].split() == ["(all)", "16"]
    assert "(the array)" in str(tree(jnp.ones(2)))


@pytest.mark.filterwarnings("ignore")  # of treescope, for an array without entries
def test_a_notebook_gets_treescope():
    pytest.importorskip("treescope")
    html = tree(PARAMS)._repr_html_()
    assert "treescope" in html
    assert "<td" not in html.split("<script")[0]


def test_a_notebook_without_treescope_gets_the_table(monkeypatch):
    monkeypatch.setitem(sys.modules, "treescope", None)
    html = tree({"a<b": jnp.ones(2)})._repr_html_()
    assert html.startswith("<table>")
    assert "a&lt;b" in html
    assert html.count("<tr>") == 3


def test_what_an_optimizer_does_is_a_table_in_a_notebook():
    html = explain(adam(1e-2), {"head": {"kernel": jnp.zeros((4, 2))}})._repr_html_()
    assert html.count("<tr>") == 2
    assert "<th>learning rate</th>" in html
    assert "head/kernel" in html
    assert "state 68 B, of which 4 B belong to no leaf" in html
