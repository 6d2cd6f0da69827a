"""Definitions: what is refused, with which path, and what counts as the same content."""

from typing import Any

import pytest

from app.flows.definition import MAX_FAULTS, content_hash, faults, node_types


def node(number: int, **more: Any) -> dict[str, Any]:
    return {"id": f"n{number}", "type": "debug", **more}


@pytest.mark.parametrize(
    "definition",
    [
        {"nodes": []},
        {"nodes": [node(1), node(2)], "connections": [{"source": "n1", "target": "n2", "source_port": 0}]},
        {"nodes": [node(1), node(2)], "connections": [{"id": "c", "source_id": "n1", "target_id": "n2"}]},
        {"nodes": [node(1, wires=[["n2"], []]), node(2, x=1, y=2.5, name="", z="tab", config={"a": [1]})]},
        {"nodes": [node(1)], "connections": [], "config": {"deep": {"er": {}}}},
    ],
)
def test_well_formed(definition: dict[str, Any]) -> None:
    assert faults(definition) == {}


@pytest.mark.parametrize(
    ("definition", "path"),
    [
        ({}, "nodes"),
        ({"nodes": {}}, "nodes"),
        ({"nodes": [node(1)], "extra": 1}, "extra"),
        ({"nodes": [node(1)], "config": []}, "config"),
        ({"nodes": ["x"]}, "nodes.0"),
        ({"nodes": [node(1), {"type": "debug"}]}, "nodes.1.id"),
        ({"nodes": [node(1), {"id": "", "type": "debug"}]}, "nodes.1.id"),
        ({"nodes": [node(1), {"id": "n2"}]}, "nodes.1.type"),
        ({"nodes": [node(1), node(2), node(3), node(1)]}, "nodes.3.id"),
        ({"nodes": [node(1, config=[])]}, "nodes.0.config"),
        ({"nodes": [node(1, x=True)]}, "nodes.0.x"),
        ({"nodes": [node(1, wires="n1")]}, "nodes.0.wires"),
        ({"nodes": [node(1, wires=[["n1", "n9"]])]}, "nodes.0.wires.0.1"),
        ({"nodes": [node(1)], "connections": {}}, "connections"),
        ({"nodes": [node(1)], "connections": [1]}, "connections.0"),
        ({"nodes": [node(1)], "connections": [{"source": "n1", "target": "n9"}]}, "connections.0.target"),
        ({"nodes": [node(1)], "connections": [{"source_id": "n9", "target": "n1"}]}, "connections.0.source_id"),
        ({"nodes": [node(1)], "connections": [{"source": "n1", "source_id": "n1", "target": "n1"}]},
         "connections.0.source"),
        ({"nodes": [node(1)], "connections": [{"source": "n1"}]}, "connections.0.target"),
        ({"nodes": [node(1, config={"text": "x" * 1024 * 1024})]}, ""),
        ({"nodes": [node(number) for number in range(10_001)]}, "nodes"),
    ],
)  # fmt: skip
def test_faults_have_their_path(definition: dict[str, Any], path: str) -> None:
    assert list(faults(definition)) == [path]


def test_depth_is_bounded() -> None:
    deep: dict[str, Any] = {}
    for _ in range(100_000):
        deep = {"in": deep}
    assert list(faults({"nodes": [], "config": deep})) == [""]


def test_not_more_faults_than_one_can_read() -> None:
    assert len(faults({"nodes": [{} for _ in range(1000)]})) == MAX_FAULTS


def test_same_content_same_hash() -> None:
    one = {"nodes": [{"id": "a", "type": "t", "x": 1.0, "name": "é"}], "config": {}}
    other = {"config": {}, "nodes": [{"name": "é", "x": 1, "type": "t", "id": "a"}]}
    assert content_hash(one) == content_hash(other)
    assert content_hash({"nodes": []}) == "acf2fa576acb702442f9d0101673354c398db67315c066ca48be8db8e0d2c75b"
    assert content_hash(one) != content_hash({**one, "config": {"a": True}})
    assert content_hash({"nodes": [], "config": {"a": 1}}) != content_hash({"nodes": [], "config": {"a": True}})


def test_a_runtime_needs_the_types_of_nodes_but_not_those_that_the_flow_brings_itself() -> None:
    nodes = [
        {"id": "s1", "type": "subflow"},
        {"id": "a", "type": "subflow:s1"},
        {"id": "b", "type": "subflow:elsewhere"},
        {"id": "c", "type": "inject"},
        {"id": "d", "type": "inject"},
    ]
    assert node_types({"nodes": nodes}) == ["inject", "subflow", "subflow:elsewhere"]
