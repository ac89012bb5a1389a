"""In which order nodes run, and which are needed at all."""

from __future__ import annotations

from dataclasses import dataclass

from atoll.graph.graph import Graph, Link
from atoll.graph.node import Registry


@dataclass(frozen=True)
class Walk:
    """What the output nodes need, inputs before readers; and the cycles met on the way, each as its nodes in order.

    closing: the nodes at which cycles close; there can be more of these than cycles that are told.
    """

    order: tuple[str, ...]
    cycles: tuple[tuple[str, ...], ...]
    closing: frozenset[str] = frozenset()


MOST_CYCLES = 10  # told of one workflow, each of which can be as long as the workflow


def read_links(graph: Graph, registry: Registry, node_id: str) -> list[tuple[str, Link]]:
    """(input name, link) for the inputs that the node's class knows; files often carry others, which nobody reads."""
    node = graph.nodes[node_id]
    spec = registry.get(node.class_type)
    return [(name, link) for name, link in node.links() if spec is not None and spec.input(name) is not None]


def output_nodes(graph: Graph, registry: Registry) -> list[str]:
    """Ids of the nodes that leave something behind, in the graph's order."""
    specs = {node_id: registry.get(node.class_type) for node_id, node in graph.nodes.items()}
    return [node_id for node_id, spec in specs.items() if spec is not None and spec.is_output]


def walk_graph(graph: Graph, registry: Registry) -> Walk:
    """Depth first from each output node. The same graph gives the same order; links into nowhere are passed over."""
    order: list[str] = []
    cycles: list[tuple[str, ...]] = []
    done: set[str] = set()
    closing: set[str] = set()
    for output in output_nodes(graph, registry):
        if output in done:
            continue
        path = {output: iter(read_links(graph, registry, output))}  # ordered: the nodes whose inputs are being walked
        while path:
            node_id = next(reversed(path))
            for _, link in path[node_id]:
                if link.node_id in path:
                    closing.add(node_id)
                    if len(cycles) < MOST_CYCLES:
                        ids = list(path)
                        cycles.append(tuple(ids[ids.index(link.node_id) :]))
                elif link.node_id in graph.nodes and link.node_id not in done:
                    path[link.node_id] = iter(read_links(graph, registry, link.node_id))
                    break
            else:
                del path[node_id]
                done.add(node_id)
                order.append(node_id)
    return Walk(tuple(order), tuple(cycles), frozenset(closing))


def execution_order(graph: Graph, registry: Registry) -> tuple[str, ...]:
    """The nodes that the outputs of a valid graph need, each after all it reads."""
    walk = walk_graph(graph, registry)
    if walk.cycles:
        raise ValueError(f"nodes feed each other in a circle: {' -> '.join(walk.cycles[0])}")
    return walk.order
