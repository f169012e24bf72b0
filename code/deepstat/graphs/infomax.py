"""Training without labels: tell the nodes of a graph from those of a shuffled copy.

Chapter: graphs/message_passing.
"""

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn
from torch.nn.functional import logsigmoid

from deepstat.graphs.gcn import GCNConv
from deepstat.graphs.message_passing import check_sizes


class DeepGraphInfomax(nn.Module):
    r"""One layer of graph convolution, and the score that trains it.

    Veličković, Fedus, Hamilton, Liò, Bengio and Hjelm, *Deep Graph Infomax*, 2019, with their encoder for one given
    graph, :math:`\mathbf Z = \mathrm{PReLU}(\hat{\mathbf A} \mathbf X \boldsymbol\Omega^\top + \mathbf 1 \boldsymbol\beta^\top)`.
    The graph is summarized by :math:`\mathbf s = \sigma(\frac1N \sum_v \mathbf z_v)`; the score of a node is
    :math:`\mathbf z_v^\top \mathbf W \mathbf s`.

    Args:
        inputs: features of a node.
        outputs: length of its embedding.

    Shapes: ``x (nodes, inputs)``, ``edge_index (2, edges)`` -> ``(nodes, outputs)``.

    Raises:
        TypeError, ValueError: if a size is not a positive integer; otherwise as :class:`~deepstat.graphs.gcn.GCNConv`.
    """

    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        check_sizes(inputs=inputs, outputs=outputs)
        self.layer = GCNConv(inputs, outputs)
        self.slope = nn.PReLU(outputs)
        self.bilinear = nn.Linear(outputs, outputs, bias=False)

    def forward(
        self, x: Float[Tensor, "nodes inputs"], edge_index: Int64[Tensor, "2 edges"]
    ) -> Float[Tensor, "nodes outputs"]:
        return self.slope(self.layer(x, edge_index))

    def loss(
        self, x: Float[Tensor, "nodes inputs"], edge_index: Int64[Tensor, "2 edges"]
    ) -> Float[Tensor, ""]:
        r"""Logistic loss of "true" against "shuffled", the mean over the nodes of each, added.

        :math:`2 \log 2` for a score that knows nothing. The rows of ``x`` are shuffled anew at each call.

        Raises:
            ValueError: if there is no node; otherwise as the call itself.
        """
        if not len(x):
            raise ValueError("x must have at least one row, got none")
        z = self(x, edge_index)
        shuffled = x[torch.randperm(len(x), device=x.device)]
        fake = self(shuffled, edge_index)
        s = self.bilinear(torch.sigmoid(z.mean(0)))
        return -(logsigmoid(z @ s).mean() + logsigmoid(-fake @ s).mean())
