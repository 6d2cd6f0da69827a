"""The flow runtime: definitions, nodes, executions."""

import asyncio

import pytest

from agent.runtime.definition import FlowError, parse
from agent.runtime.engine import MAX_HOPS, FlowEngine, UnsupportedNodeType
from agent.runtime.executions import History
from tests.agent.support import counting_flow, until


def node(node_id, kind, *outputs, **config):
    return {"id": node_id, "type": kind, "config": config, "wires": [list(targets) for targets in outputs]}


def play(nodes, connections=(), seconds=5, shown=1):
    """Run a flow until `shown` values were shown; the engine, stopped, and the executions."""

    async def run():
        history = History()
        engine = FlowEngine("f", parse({"nodes": nodes, "connections": list(connections)}), history)
        await engine.start()
        try:
            await until(lambda: len(engine.shown) >= shown, seconds)
        finally:
            await engine.stop()
        return engine, history.newest()

    return asyncio.run(run())


def test_a_message_goes_from_inject_through_function_change_and_switch_to_debug():
    nodes = [
        node("in", "inject", ["f"], payload=35, topic="room", delay=0),
        node("f", "function", ["c"], set={"payload.f": "payload * 1.8 + 32", "payload.c": "35"}),
        node("c", "change", ["s"], rules=[{"op": "rename", "path": "payload.f", "to": "payload.fahrenheit"}]),
        node("s", "switch", ["cold"], ["hot"], property="payload.fahrenheit"),
        node("cold", "debug", path="msg"),
        node("hot", "debug", path="msg"),
    ]
    nodes[1]["config"]["set"] = {"keep": "payload", "payload.f": "keep * 1.8 + 32"}
    nodes[3]["config"]["rules"] = [{"op": "lt", "value": 50}, {"op": "else"}]
    nodes[4]["name"], nodes[5]["name"] = "cold", "hot"
    engine, executions = play(nodes)
    assert list(engine.shown) == ['{"payload":{"fahrenheit":95.0},"topic":"room","keep":35}']
    assert executions[0]["status"] == "succeeded"
    assert executions[0]["messages"] == 5


@pytest.mark.parametrize(
    ("value", "output"),
    [(1, "eq"), (3, "between"), (5, "between"), (9, "gt"), ("text", "else"), (None, "else")],
)
def test_switch_takes_the_output_of_its_rule(value, output):
    rules = [{"op": "eq", "value": 1}, {"op": "between", "low": 3, "high": 5}, {"op": "gt", "value": 8}, {"op": "else"}]
    names = ["eq", "between", "gt", "else"]
    nodes = [
        node("in", "inject", ["s"], payload=value, delay=0),
        node("s", "switch", *[[name] for name in names], rules=rules),
        *[node(f"{name}", "function", ["out"], expression=f"'{name}'") for name in names],
        node("out", "debug"),
    ]
    assert list(play(nodes)[0].shown) == [output]


def test_connections_work_like_wires_and_a_wire_told_twice_counts_once():
    nodes = [{"id": "a", "type": "inject", "config": {"delay": 0, "payload": 1}, "wires": [["b"]]}]
    nodes += [{"id": "b", "type": "delay", "config": {"seconds": 0.01}}, {"id": "c", "type": "debug"}]
    connections = [{"source": "a", "target": "b"}, {"source_id": "b", "target_id": "c", "source_port": 0}]
    engine, executions = play(nodes, connections)
    assert list(engine.shown) == ["1"]
    assert [execution["status"] for execution in executions] == ["succeeded"]


def test_branches_do_not_see_each_others_changes():
    nodes = [
        node("in", "inject", ["a", "b"], payload={"n": 1}, delay=0),
        node("a", "function", ["out"], set={"payload.n": "payload.n + 10"}),
        node("b", "function", ["out"], set={"payload.n": "payload.n + 20"}),
        node("out", "debug", path="payload.n"),
    ]
    assert sorted(play(nodes, shown=2)[0].shown) == ["11", "21"]


def test_inject_repeats_and_counts():
    engine, _ = play(counting_flow("count * 2")["nodes"], shown=4)
    assert list(engine.shown)[:4] == ["2", "4", "6", "8"]


def test_a_node_that_fails_ends_its_execution_and_nothing_else():
    nodes = [
        node("in", "inject", ["f", "out"], interval=0.01, expression="count"),
        node("f", "function", [], expression="1 / (payload - payload)"),
        node("out", "debug"),
    ]
    engine, executions = play(nodes, shown=3)
    assert engine.errors >= 3
    assert executions[-1]["status"] == "failed"
    assert "division" in executions[-1]["error"]


def test_a_circle_of_wires_is_broken():
    nodes = [
        node("in", "inject", ["a"], payload=0, delay=0),
        node("a", "function", ["b", "out"], expression="payload + 1"),
        node("b", "function", ["a"], expression="payload"),
        node("out", "debug"),
    ]

    async def run():
        history = History()
        engine = FlowEngine("f", parse({"nodes": nodes}), history)
        await engine.start()
        await until(lambda: engine.errors)
        await engine.stop()
        return history.newest()[0]

    execution = asyncio.run(run())
    assert "circle" in execution["error"]
    assert execution["messages"] < 3 * MAX_HOPS


@pytest.mark.parametrize(
    ("definition", "path"),
    [
        ([], "flow"),
        ({}, "nodes"),
        ({"nodes": [1]}, "nodes[0]"),
        ({"nodes": [{"id": "", "type": "x"}]}, "nodes[0].id"),
        ({"nodes": [{"id": "a"}]}, "nodes[0].type"),
        ({"nodes": [{"id": "a", "type": "x"}, {"id": "a", "type": "x"}]}, "nodes[1].id"),
        ({"nodes": [{"id": "a", "type": "x", "config": 1}]}, "nodes[0].config"),
        ({"nodes": [{"id": "a", "type": "x", "wires": ["b"]}]}, "nodes[0].wires"),
        ({"nodes": [{"id": "a", "type": "x", "wires": [["b"]]}]}, "nodes[0].wires"),
        ({"nodes": [], "connections": [{"source": "a"}]}, "connections[0].target"),
        ({"nodes": [], "connections": [{"source": "a", "target": "b"}]}, "connections[0]"),
        ({"nodes": [], "connections": {}}, "connections"),
    ],
)
def test_a_wrong_definition_says_where(definition, path):
    with pytest.raises(FlowError) as caught:
        parse(definition)
    assert caught.value.path == path


@pytest.mark.parametrize(
    ("kind", "config"),
    [
        ("inject", {"interval": 0}),
        ("inject", {"interval": "1"}),
        ("inject", {"expression": "open('x')"}),
        ("function", {}),
        ("function", {"set": []}),
        ("change", {}),
        ("change", {"rules": [{"op": "set", "path": "a"}]}),
        ("switch", {"rules": [{"op": "like", "value": 1}]}),
        ("switch", {"rules": [{"op": "between", "low": 1}]}),
        ("delay", {"seconds": -1}),
    ],
)
def test_a_wrong_configuration_is_found_before_anything_starts(kind, config):
    async def build():
        FlowEngine("f", parse({"nodes": [node("n", kind, **config)]}), History())

    with pytest.raises(FlowError, match="node n, config"):
        asyncio.run(build())


def test_an_unknown_node_type_is_told_by_name():
    async def build():
        FlowEngine("f", parse({"nodes": [node("n", "modbus")]}), History())

    with pytest.raises(UnsupportedNodeType, match="modbus"):
        asyncio.run(build())
