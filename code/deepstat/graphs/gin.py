r"""The graph isomorphism network: sums over neighbours, and an MLP that can tell every multiset from every other.

Chapter: graphs/expressivity.
"""

from collections.abc import Callable

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from deepstat.foundations.mlp import MLP, find_activation
from deepstat.graphs.message_passing import Edges, check_edges, check_features, check_sizes, reduce_at
from deepstat.graphs.readout import check_batch


class GINConv(nn.Module):
    r"""The layer :math:`\mathbf h'_v = \mathrm{MLP}\bigl((1 + \varepsilon)\,\mathbf h_v + \sum_{u \to v} \mathbf h_u\bigr)`.

    Xu, Hu, Leskovec and Jegelka, *How Powerful are Graph Neural Networks?*, 2019, equation 4.1.

    Args:
        mlp: a module from ``(nodes, features)`` to ``(nodes, outputs)``.
        epsilon: :math:`\varepsilon`, or where it starts.
        train_epsilon: whether it is a parameter.

    Shapes: ``x (nodes, features)``, ``edge_index (2, edges)`` -> ``(nodes, outputs)``.

    Raises:
        TypeError, ValueError: if ``mlp`` is no module, ``x`` is not a floating point tensor of two axes,
            ``edge_index`` does not hold edges between its rows, or ``mlp`` refuses the number of features.
    """

    def __init__(self, mlp: nn.Module, epsilon: float = 0.0, train_epsilon: bool = False):
        super().__init__()
        if not isinstance(mlp, nn.Module):
            raise TypeError(f"mlp must be a module, got {type(mlp).__name__}")
        self.mlp = mlp
        start = torch.tensor(float(epsilon))
        if train_epsilon:
            self.epsilon = nn.Parameter(start)
        else:
            self.register_buffer("epsilon", start)

    def forward(
        self, x: Float[Tensor, "nodes features"], edge_index: Edges
    ) -> Float[Tensor, "nodes outputs"]:
        check_features(x, x.shape[-1])
        check_edges(edge_index, len(x))
        source, target = edge_index
        total = reduce_at(x.index_select(0, source), target, len(x), "sum")
        return self.mlp((1 + self.epsilon.to(x.dtype)) * x + total)


class GIN(nn.Module):
    r"""A network for whole graphs: GIN layers, and a linear map of the sums of the nodes' features after every layer.

    Xu et al., 2019, equations 4.1 and 4.2, with an MLP of one hidden layer in each layer, an activation after it, and
    without their batch normalization, so that the output for a graph does not depend on the rest of the batch.

    Args:
        inputs: features of a node.
        width: features of a node after each layer, and hidden units of each MLP.
        outputs: numbers predicted for a graph.
        layers: how many layers.
        activation: a name in ``ACTIVATIONS`` or a function, entry by entry; the paper's is ReLU.

    Shapes: ``x (nodes, inputs)``, ``edge_index (2, edges)``, ``batch (nodes,)``, the graph of each node in any
    order, and the number of graphs -> ``(graphs, outputs)``. A graph without nodes has the output for sums of zero.

    Raises:
        TypeError, ValueError: if a size is not a positive integer, the activation is unknown, ``x`` has another shape
            or is not a floating point tensor, ``edge_index`` does not hold edges between its rows, or ``batch`` is
            not a graph for each row.
    """

    def __init__(
        self,
        inputs: int,
        width: int,
        outputs: int,
        layers: int = 3,
        activation: str | Callable[[Tensor], Tensor] = "relu",
    ):
        super().__init__()
        check_sizes(inputs=inputs, width=width, outputs=outputs, layers=layers)
        self.activation = find_activation(activation)
        sizes = [inputs] + [width] * layers
        self.layers = nn.ModuleList(
            GINConv(MLP((size, width, width), activation)) for size in sizes[:-1]
        )
        self.head = nn.Linear(sum(sizes), outputs)
        self.inputs = inputs

    def forward(
        self, x: Float[Tensor, "nodes inputs"], edge_index: Edges, batch: Int64[Tensor, " nodes"], graphs: int
    ) -> Float[Tensor, "graphs outputs"]:
        return self.head(self.embed(x, edge_index, batch, graphs))

    def embed(
        self, x: Float[Tensor, "nodes inputs"], edge_index: Edges, batch: Int64[Tensor, " nodes"], graphs: int
    ) -> Float[Tensor, "graphs sums"]:
        """The sums that the last linear map is applied to, layer after layer."""
        check_features(x, self.inputs)
        check_batch(batch, len(x), graphs)
        h, sums = x, [reduce_at(x, batch, graphs)]
        for layer in self.layers:
            h = self.activation(layer(h, edge_index))
            sums.append(reduce_at(h, batch, graphs))
        return torch.cat(sums, dim=1)
