"""An encoder that drops nodes and a decoder that puts them back.

Chapter: graphs/sampling_and_pooling.
"""

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from deepstat.graphs.gcn import GCNConv
from deepstat.graphs.message_passing import add_self_loops, check_features, check_sizes
from deepstat.graphs.topk_pooling import TopKPooling


def within_two(edge_index: Int64[Tensor, "2 edges"], nodes: int) -> Int64[Tensor, "2 pairs"]:
    r"""The pairs of different nodes that one or two edges lead between: the pattern of :math:`(\mathbf A + \mathbf I)^2`.

    Args:
        edge_index: source and target of each edge, shape ``(2, edges)``.
        nodes: number of nodes.

    Returns:
        Each pair once, sorted by source, then target. A hub of degree :math:`d` joins about :math:`d^2` pairs.

    Raises:
        TypeError, ValueError: as :func:`~deepstat.graphs.message_passing.check_edges`.
    """
    edges = add_self_loops(edge_index, nodes)
    source, target = edges[:, edges[0].argsort()]
    size = torch.bincount(source, minlength=nodes)
    steps = size[target]  # the edges that continue each edge
    begin = (size.cumsum(0) - size)[target] - (steps.cumsum(0) - steps)
    onward = torch.arange(int(steps.sum()), device=edges.device) + begin.repeat_interleave(steps)
    pairs = (source.repeat_interleave(steps) * nodes + target[onward]).unique()
    pairs = torch.stack([pairs // max(nodes, 1), pairs % max(nodes, 1)])
    return pairs[:, pairs[0] != pairs[1]]


class GraphUNet(nn.Module):
    r"""Graph convolutions on smaller and smaller graphs, and back, with skip connections at each size.

    Gao and Ji, *Graph U-Nets*, 2019. On the way down, ``depth`` times: join nodes that are two edges apart,
    keep the best share of the nodes by :class:`~deepstat.graphs.topk_pooling.TopKPooling`, convolve. On the way up:
    put the rows back to the places from which they came, with zeros elsewhere; add what was there on the way down;
    convolve with the edges of that size. Differences: the new edges have weight one, not the number of paths, and
    the convolution's self-loops weight one, not two. As all that selects nodes, it does not compile with
    ``fullgraph=True``.

    Args:
        inputs: features of a node.
        hidden: features of a node in between.
        outputs: features of a node at the end.
        depth: how often nodes are dropped.
        ratio: share of the nodes of each graph that each step keeps, above 0 and at most 1.

    Shapes: ``x (nodes, inputs)``, ``edge_index (2, edges)``, ``batch (nodes,)``, ``graphs`` -> ``(nodes, outputs)``.

    Raises:
        TypeError, ValueError: if a size is not a positive integer, ``ratio`` is out of range, ``x`` has another shape
            or is not a floating point tensor, ``edge_index`` does not hold edges between its rows, or ``batch`` does
            not name one of ``graphs`` graphs for each.
    """

    def __init__(self, inputs: int, hidden: int, outputs: int, depth: int, ratio: float = 0.5):
        super().__init__()
        check_sizes(inputs=inputs, hidden=hidden, outputs=outputs, depth=depth)
        self.down = nn.ModuleList(GCNConv(hidden if level else inputs, hidden) for level in range(depth + 1))
        self.pools = nn.ModuleList(TopKPooling(hidden, ratio) for _ in range(depth))
        self.up = nn.ModuleList(GCNConv(hidden, hidden if level else outputs) for level in range(depth))
        self.inputs = inputs

    def forward(
        self,
        x: Float[Tensor, "nodes inputs"],
        edge_index: Int64[Tensor, "2 edges"],
        batch: Int64[Tensor, " nodes"],
        graphs: int,
    ) -> Float[Tensor, "nodes outputs"]:
        check_features(x, self.inputs)
        h = torch.relu(self.down[0](x, edge_index))
        levels = []  # what the way up needs of each size
        for pool, convolve in zip(self.pools, self.down[1:], strict=True):
            smaller = pool(h, within_two(edge_index, len(h)), batch, graphs)
            levels.append((h, edge_index, smaller.kept))
            edge_index, batch = smaller.edge_index, smaller.batch
            h = torch.relu(convolve(smaller.x, edge_index))
        for level in range(len(levels) - 1, -1, -1):
            before, edge_index, kept = levels[level]
            h = before.index_add(0, kept, h)  # zeros elsewhere, plus the skip connection
            h = self.up[level](h, edge_index)
            h = torch.relu(h) if level else h
        return h
