"""Polynomial filters of the Laplacian: the spectral view of message passing.

Chapter: graphs/message_passing.
"""

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from deepstat.graphs.message_passing import check_edges, check_features, check_sizes, degrees_and_loops, reduce_at


def node_weights(
    x: Float[Tensor, "nodes features"], edge_index: Int64[Tensor, "2 edges"]
) -> tuple[Float[Tensor, "nodes 1"], Float[Tensor, "nodes 1"]]:
    r""":math:`d_v^{-1/2}`, or 1 at an isolated node, and the number of self-loops, in the dtype of ``x``."""
    d, loops = degrees_and_loops(edge_index, len(x), torch.promote_types(x.dtype, torch.float32))
    return d.clamp(min=1).rsqrt().to(x.dtype)[:, None], loops.to(x.dtype)[:, None]


def multiply(
    x: Float[Tensor, "nodes features"],
    edge_index: Int64[Tensor, "2 edges"],
    root: Float[Tensor, "nodes 1"],
    loops: Float[Tensor, "nodes 1"],
) -> Float[Tensor, "nodes features"]:
    r"""The product :math:`\hat{\mathbf L} \mathbf X = -\mathbf D^{-1/2} \mathbf A \mathbf D^{-1/2} \mathbf X`, without self-loops."""
    source, target = edge_index
    h = root * x
    total = reduce_at(h.index_select(0, source), target, len(x))
    return -root * (total - loops * h)


class ChebConv(nn.Module):
    r"""The filter :math:`\sum_{k=0}^{K} T_k(\hat{\mathbf L}) \mathbf X \boldsymbol\Omega_k^\top + \boldsymbol\beta`.

    Defferrard, Bresson and Vandergheynst, *Convolutional Neural Networks on Graphs with Fast Localized Spectral
    Filtering*, 2016, section 2.1. :math:`T_k` are Chebyshev's polynomials, by
    :math:`T_k = 2 \hat{\mathbf L} T_{k-1} - T_{k-2}`, and
    :math:`\hat{\mathbf L} = 2 \mathbf L_{\mathrm{sym}} / \lambda_{\max} - \mathbf I` with
    :math:`\mathbf L_{\mathrm{sym}} = \mathbf I - \mathbf D^{-1/2} \mathbf A \mathbf D^{-1/2}`. We take for
    :math:`\lambda_{\max}` its bound 2, so :math:`\hat{\mathbf L} = -\mathbf D^{-1/2} \mathbf A \mathbf D^{-1/2}`. Self-loops
    are left out, and the row of an isolated node is zero.

    Args:
        inputs: features of a node.
        outputs: features of a node after the layer.
        order: degree :math:`K` of the polynomial; a node sees those at most :math:`K` edges away.

    Shapes: ``x (nodes, inputs)``, ``edge_index (2, edges)`` -> ``(nodes, outputs)``.

    Raises:
        TypeError, ValueError: if a size is not a positive integer, ``x`` has another shape or is not a floating
            point tensor, or ``edge_index`` does not hold edges between its rows.
    """

    def __init__(self, inputs: int, outputs: int, order: int):
        super().__init__()
        check_sizes(inputs=inputs, outputs=outputs, order=order)
        self.inputs = inputs
        self.linears = nn.ModuleList(nn.Linear(inputs, outputs, bias=False) for _ in range(order + 1))
        self.bias = nn.Parameter(torch.zeros(outputs))

    def forward(
        self,
        x: Float[Tensor, "nodes inputs"],
        edge_index: Int64[Tensor, "2 edges"],
    ) -> Float[Tensor, "nodes outputs"]:
        check_features(x, self.inputs)
        check_edges(edge_index, len(x))
        weights = node_weights(x, edge_index)
        before, now = x, multiply(x, edge_index, *weights)
        total = self.linears[0](before) + self.linears[1](now)
        for linear in self.linears[2:]:
            before, now = now, 2 * multiply(now, edge_index, *weights) - before
            total = total + linear(now)
        return total + self.bias
