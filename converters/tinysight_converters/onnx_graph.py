"""An ONNX graph in an order and with names of its own, so that equal models are equal bytes.

tf2onnx walks through sets of objects: nodes, weights and names come out otherwise in each process.
In: a graph.  Out: the same graph, in place; inputs and outputs keep their names. Takes no control flow.
"""

from typing import Any

__all__ = ["put_in_order"]


def put_in_order(graph: Any) -> None:  # noqa: ANN401 -- protobuf has no types
    """Sort and name nodes as the outputs need them, weights as the nodes need them; drop what nothing needs."""
    outputs = sorted((_copy(each) for each in graph.output), key=lambda each: each.name)
    nodes = _needed(graph, [each.name for each in outputs])
    stored = {each.name: each for each in graph.initializer}
    names = {each.name: each.name for each in (*graph.input, *outputs)} | {"": ""}  # an input left out has no name
    weights: list[Any] = []
    for number, node in enumerate(nodes):
        for name in node.input:
            if name in stored and name not in names:
                names[name] = f"weight_{len(weights)}"
                weights.append(_copy(stored[name]))
                weights[-1].name = names[name]
        node.name = f"{node.op_type.lower()}_{number}"
        for place, name in enumerate(node.output):
            names.setdefault(name, node.name if place == 0 else f"{node.name}_{place}")
        for mine in (node.input, node.output):
            mine[:] = [names[name] for name in mine]
        attributes = sorted((_copy(each) for each in node.attribute), key=lambda each: each.name)
        del node.attribute[:]
        node.attribute.extend(attributes)
    del graph.node[:], graph.initializer[:], graph.output[:], graph.value_info[:]
    graph.node.extend(nodes)
    graph.initializer.extend(weights)
    graph.output.extend(outputs)


def _needed(graph: Any, outputs: list[str]) -> list[Any]:  # noqa: ANN401 -- see above
    """Copies of the nodes that the outputs need, each after those that it needs itself."""
    makers = {name: node for node in graph.node for name in node.output}
    order: dict[str, Any] = {}
    waiting = [(name, False) for name in reversed(outputs)]
    while waiting:
        name, inputs_are_there = waiting.pop()
        node = makers.get(name)
        if node is None or node.output[0] in order:
            continue
        if inputs_are_there:
            order[node.output[0]] = _copy(node)
        else:
            waiting.append((name, True))
            waiting += [(each, False) for each in reversed(node.input)]
    return list(order.values())


def _copy(message: Any) -> Any:  # noqa: ANN401 -- see above
    made = type(message)()
    made.CopyFrom(message)
    return made
