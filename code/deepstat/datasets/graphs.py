"""Bundled graphs as tensors, with shapes, units, source and licence.

Chapters: reading_this_book, graphs/graphs.
"""

from dataclasses import dataclass

import networkx
import torch
from jaxtyping import Float32, Int64
from torch import Tensor

SOUTHERN_DATES = (  # month and day of E1, ..., E14 in Davis, Gardner and Gardner's table, which networkx leaves out
    *((6, 27), (3, 2), (4, 12), (9, 26), (2, 25), (5, 19), (3, 15)),
    *((9, 16), (4, 8), (6, 10), (2, 23), (4, 7), (11, 21), (8, 3)),
)


@dataclass(frozen=True, repr=False)
class Graph:
    """A graph with one class for each node.

    Args:
        x: features of the nodes, shape ``(nodes, features)``.
        edge_index: source and target of each directed edge, shape ``(2, edges)``; an undirected edge is there twice.
        edge_weight: weight of each directed edge, shape ``(edges,)``.
        y: class of each node, shape ``(nodes,)``.
        classes: what the classes are called.
        source: where the graph comes from.
        licence: what the library that ships it says about its use.
    """

    x: Float32[Tensor, "nodes features"]
    edge_index: Int64[Tensor, "2 edges"]
    edge_weight: Float32[Tensor, " edges"]
    y: Int64[Tensor, " nodes"]
    classes: tuple[str, ...]
    source: str
    licence: str

    def __repr__(self) -> str:
        return f"Graph({len(self.y)} nodes, {self.edge_index.shape[1]} directed edges, {len(self.classes)} classes)"


def karate_club() -> Graph:
    """The 34 members of Zachary's karate club, 78 friendships, and the side that each took when it split in two.

    The nodes have no features of their own, so ``x`` is the identity matrix: each node knows only which it is.

    Returns:
        ``x`` of shape ``(34, 34)``; ``edge_index`` of shape ``(2, 156)``, sorted by source, then target;
        ``edge_weight`` the number of settings outside the club in which the two met; ``y`` 0 for the instructor's
        side (Mr. Hi), 1 for the president's (Officer).
    """
    graph = networkx.karate_club_graph()
    edges = sorted((i, j, data["weight"]) for i, j, data in graph.to_directed().edges(data=True))
    classes = ("Mr. Hi", "Officer")
    return Graph(
        x=torch.eye(len(graph)),
        edge_index=torch.tensor([(i, j) for i, j, _ in edges]).T.contiguous(),
        edge_weight=torch.tensor([weight for *_, weight in edges], dtype=torch.float32),
        y=torch.tensor([classes.index(graph.nodes[node]["club"]) for node in sorted(graph)]),
        classes=classes,
        source="W. W. Zachary (1977), An information flow model for conflict and fission in small groups, Journal of "
        "Anthropological Research 33, 452-473; networkx's karate_club_graph.",
        licence="networkx, which ships the data under its BSD-3-Clause licence, states none for the data themselves.",
    )


@dataclass(frozen=True, repr=False)
class Affiliation:
    """Who took part in what: a bipartite graph, as the matrix of its edges.

    Args:
        attended: 1 if the actor took part in the event, else 0, shape ``(actors, events)``.
        actors: their names.
        events: their names.
        dates: month and day of each event, shape ``(events, 2)``.
        source: where the data come from.
        licence: what the library that ships them says about their use.
    """

    attended: Int64[Tensor, "actors events"]
    actors: tuple[str, ...]
    events: tuple[str, ...]
    dates: Int64[Tensor, "events 2"]
    source: str
    licence: str

    def __repr__(self) -> str:
        return f"Affiliation({len(self.actors)} actors, {len(self.events)} events, {int(self.attended.sum())} edges)"


def southern_women() -> Affiliation:
    """18 women of Natchez, Mississippi, and 14 social events of the 1930s that they attended.

    Returns:
        ``attended`` of shape ``(18, 14)`` with 89 ones; women and events in the order of the published table, in
        which the events are not in the order of their ``dates``.
    """
    graph = networkx.davis_southern_women_graph()
    women, events = (tuple(graph.graph[side]) for side in ("top", "bottom"))
    return Affiliation(
        attended=torch.tensor([[int(graph.has_edge(woman, event)) for event in events] for woman in women]),
        actors=women,
        events=events,
        dates=torch.tensor(SOUTHERN_DATES),
        source="A. Davis, B. B. Gardner and M. R. Gardner (1941), Deep South, University of Chicago Press; networkx's "
        "davis_southern_women_graph.",
        licence="networkx, which ships the data under its BSD-3-Clause licence, states none for the data themselves.",
    )
