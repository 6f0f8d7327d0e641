"""The nodes of a NIR graph, sources first."""

from heapq import heapify, heappop, heappush
from pathlib import Path

from hardspike.convert.nir_file import NirGraph
from hardspike.snn.errors import FileError, UnsupportedLayerError


def in_order(path: Path, graph: NirGraph) -> list[tuple[str, list[str]]]:
    """Every node with its sources, all of which come before it; otherwise in the order in which the edges reach them.

    Raises FileError for an edge that joins no nodes or is there twice, UnsupportedLayerError for a cycle.
    """
    sources: dict[str, list[str]] = {name: [] for name in graph.nodes}
    readers: dict[str, list[str]] = {name: [] for name in graph.nodes}
    seen = set()
    for edge in graph.edges:
        if edge in seen or edge[0] not in sources or edge[1] not in sources:
            raise FileError(f"{path}: edge {edge[0]!r} to {edge[1]!r} is there twice or joins no nodes; it is damaged")
        seen.add(edge)
        sources[edge[1]].append(edge[0])
        readers[edge[0]].append(edge[1])
    roots = [name for name, found in sources.items() if not found]
    rank = {name: number for number, name in enumerate([*roots, *dict.fromkeys(target for _, target in graph.edges)])}
    missing = {name: len(found) for name, found in sources.items()}
    ready = [(rank[name], name) for name in roots]
    heapify(ready)
    order = []
    while ready:
        _, name = heappop(ready)
        order.append((name, sources[name]))
        for target in readers[name]:
            missing[target] -= 1
            if not missing[target]:
                heappush(ready, (rank[target], target))
    if len(order) < len(sources):
        name = next(name for name, number in missing.items() if number)
        raise UnsupportedLayerError(
            f"{path}: node '{name}' ({graph.nodes[name].kind}) is part of a cycle or behind one; recurrent networks are not "
            "supported; remove the recurrence"
        )
    return order
