"""In which order nodes run, and which are needed at all."""

from __future__ import annotations

from atoll.graph.graph import Graph, Link
from atoll.graph.node import Registry


def read_links(graph: Graph, registry: Registry, node_id: str) -> list[tuple[str, Link]]:
    """(input name, link) for the inputs that the node's class knows; files often carry others, which nobody reads."""
    node = graph.nodes[node_id]
    spec = registry.get(node.class_type)
    return [(name, link) for name, link in node.links() if spec is not None and spec.input(name) is not None]


def output_nodes(graph: Graph, registry: Registry) -> list[str]:
    """Ids of the nodes that leave something behind, in the graph's order."""
    ids = []
    for node_id, node in graph.nodes.items():
        spec = registry.get(node.class_type)
        if spec is not None and spec.is_output:
            ids.append(node_id)
    return ids


def execution_order(graph: Graph, registry: Registry) -> list[str]:
    """What the output nodes need, each node after all it reads; otherwise as early as the first reader wants it.

    The same graph gives the same order. Links to nodes that do not exist are passed over.

    Raises: ValueError naming the nodes of a cycle; `validate_graph` reports that as a fault.
    """
    order: list[str] = []
    done: set[str] = set()
    open_path: dict[str, None] = {}  # ordered: the nodes whose inputs are being walked
    for output in output_nodes(graph, registry):
        stack = [(output, iter(read_links(graph, registry, output)))] if output not in done else []
        open_path[output] = None
        while stack:
            node_id, links = stack[-1]
            for _, link in links:
                if link.node_id in open_path:
                    path = list(open_path)
                    cycle = path[path.index(link.node_id) :]
                    raise ValueError(" -> ".join([*cycle, link.node_id]))
                if link.node_id in graph.nodes and link.node_id not in done:
                    open_path[link.node_id] = None
                    stack.append((link.node_id, iter(read_links(graph, registry, link.node_id))))
                    break
            else:
                stack.pop()
                del open_path[node_id]
                if node_id not in done:
                    done.add(node_id)
                    order.append(node_id)
        open_path.clear()
    return order
