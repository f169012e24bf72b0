"""A recurrent network for signals on a graph that may change with time.

Chapter: graphs/sampling_and_pooling.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from deepstat.graphs.chebnet import ChebConv
from deepstat.graphs.message_passing import check_features, check_sizes


class GraphGRUCell(nn.Module):
    r"""One step in time: a gated recurrent unit whose linear maps are filters on the graph.

    Seo, Defferrard, Vandergheynst and Bresson, *Structured Sequence Modeling with Graph Convolutional Recurrent
    Networks*, 2018, their second model with a GRU in place of the LSTM. With :math:`\star` for
    :class:`~deepstat.graphs.chebnet.ChebConv`,

    .. math::
        \mathbf R = \sigma(\boldsymbol\Omega_1 \star \mathbf X + \boldsymbol\Omega_2 \star \mathbf H), \quad
        \mathbf U = \sigma(\boldsymbol\Omega_3 \star \mathbf X + \boldsymbol\Omega_4 \star \mathbf H), \\
        \mathbf C = \tanh(\boldsymbol\Omega_5 \star \mathbf X + \mathbf R \odot (\boldsymbol\Omega_6 \star \mathbf H)), \quad
        \mathbf H' = (1 - \mathbf U) \odot \mathbf C + \mathbf U \odot \mathbf H .

    Biases are left out here. As in ``nn.GRUCell`` the gate :math:`\mathbf R` comes after the filter; on a graph without
    edges, and with order one, it is that cell at each node.

    Args:
        inputs: features of a node at each time.
        hidden: features of the state of a node.
        order: of the filters; a step sees nodes at most that many edges away.

    Shapes: ``x (nodes, inputs)``, ``h (nodes, hidden)``, ``edge_index (2, edges)`` -> the next state
    ``(nodes, hidden)``.

    Raises:
        TypeError, ValueError: if a size is not a positive integer, ``x`` or ``h`` has another shape or is not a
            floating point tensor, or ``edge_index`` does not hold edges between their rows.
    """

    def __init__(self, inputs: int, hidden: int, order: int = 1):
        super().__init__()
        check_sizes(inputs=inputs, hidden=hidden, order=order)
        self.hidden = hidden
        self.from_input = ChebConv(inputs, 3 * hidden, order)
        self.from_state = ChebConv(hidden, 3 * hidden, order)

    def forward(
        self,
        x: Float[Tensor, "nodes inputs"],
        h: Float[Tensor, "nodes hidden"],
        edge_index: Int64[Tensor, "2 edges"],
    ) -> Float[Tensor, "nodes hidden"]:
        check_features(h, self.hidden, "h")
        if len(h) != len(x):
            raise ValueError(f"h must have shape ({len(x)}, {self.hidden}), got {tuple(h.shape)}")
        reset_x, update_x, candidate_x = self.from_input(x, edge_index).chunk(3, dim=1)
        reset_h, update_h, candidate_h = self.from_state(h, edge_index).chunk(3, dim=1)
        update = torch.sigmoid(update_x + update_h)
        candidate = torch.tanh(candidate_x + torch.sigmoid(reset_x + reset_h) * candidate_h)
        return (1 - update) * candidate + update * h


class GraphGRU(nn.Module):
    r"""A :class:`GraphGRUCell` along a series, from the state zero, and a linear map of the state at each time.

    Args:
        inputs: features of a node at each time.
        hidden: features of the state of a node.
        outputs: features of a node that are predicted at each time.
        order: of the filters.

    Shapes: ``x (time, nodes, inputs)`` and ``edges``, one tensor ``(2, edges)`` for each time, as many edges as there
    are -> ``(time, nodes, outputs)``. The result at a time depends on nothing later.

    Raises:
        TypeError, ValueError: as :class:`GraphGRUCell`; if ``x`` has another shape or ``edges`` another length.
    """

    def __init__(self, inputs: int, hidden: int, outputs: int, order: int = 1):
        super().__init__()
        self.cell = GraphGRUCell(inputs, hidden, order)
        check_sizes(outputs=outputs)
        self.inputs = inputs
        self.head = nn.Linear(hidden, outputs)

    def forward(
        self, x: Float[Tensor, "time nodes inputs"], edges: Sequence[Int64[Tensor, "2 _"]]
    ) -> Float[Tensor, "time nodes outputs"]:
        if x.ndim != 3 or x.shape[2] != self.inputs or x.shape[0] == 0:
            raise ValueError(f"x must have shape (time, nodes, {self.inputs}) with a time, got {tuple(x.shape)}")
        if len(edges) != len(x):
            raise ValueError(f"edges must hold {len(x)} graphs, one for each time, got {len(edges)}")
        h = x.new_zeros(x.shape[1], self.cell.hidden)
        states = []
        for signal, edge_index in zip(x, edges, strict=True):
            h = self.cell(signal, h, edge_index)
            states.append(h)
        return self.head(torch.stack(states))
