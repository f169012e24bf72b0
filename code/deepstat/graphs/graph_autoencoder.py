"""Codes of the nodes from which the edges can be predicted, and their variational form.

Chapter: graphs/sampling_and_pooling.
"""

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn
from torch.nn.functional import logsigmoid

from deepstat.graphs.gcn import GCNConv
from deepstat.graphs.message_passing import check_edges, check_sizes


class GraphAutoencoder(nn.Module):
    r"""Two graph convolutions: :math:`\mathbf Z = \mathrm{GCN}(a(\mathrm{GCN}(\mathbf X, \mathbf A)), \mathbf A)`.

    Kipf and Welling, *Variational Graph Auto-Encoders*, 2016. The decoder is :func:`edge_logits`.

    Args:
        inputs: features of a node.
        hidden: features in between.
        latent: length of a code.

    Shapes: ``x (nodes, inputs)``, ``edge_index (2, edges)`` -> ``(nodes, latent)``.

    Raises:
        TypeError, ValueError: as :class:`~deepstat.graphs.gcn.GCNConv`.
    """

    def __init__(self, inputs: int, hidden: int, latent: int):
        super().__init__()
        check_sizes(inputs=inputs, hidden=hidden, latent=latent)
        self.first, self.mean = GCNConv(inputs, hidden), GCNConv(hidden, latent)

    def forward(
        self, x: Float[Tensor, "nodes inputs"], edge_index: Int64[Tensor, "2 edges"]
    ) -> Float[Tensor, "nodes latent"]:
        return self.mean(torch.relu(self.first(x, edge_index)), edge_index)

    def loss(
        self, x: Float[Tensor, "nodes inputs"], edge_index: Int64[Tensor, "2 edges"], absent: Int64[Tensor, "2 absent"]
    ) -> Float[Tensor, ""]:
        """:func:`reconstruction_loss` of the edges that the encoder sees and of absent pairs."""
        return reconstruction_loss(self(x, edge_index), edge_index, absent)


class VariationalGraphAutoencoder(GraphAutoencoder):
    r"""A normal distribution for the code of each node, :math:`z_{vj} \sim \mathcal N(\mu_{vj}, \sigma_{vj}^2)`, all independent.

    Kipf and Welling, 2016: mean and logarithm of the standard deviation are two convolutions that share the first.

    Args:
        inputs: features of a node.
        hidden: features in between.
        latent: length of a code.

    Shapes: ``x (nodes, inputs)``, ``edge_index (2, edges)`` -> mean and log standard deviation, each
    ``(nodes, latent)``.

    Raises:
        TypeError, ValueError: as :class:`~deepstat.graphs.gcn.GCNConv`.
    """

    def __init__(self, inputs: int, hidden: int, latent: int):
        super().__init__(inputs, hidden, latent)
        self.log_deviation = GCNConv(hidden, latent)

    def forward(
        self, x: Float[Tensor, "nodes inputs"], edge_index: Int64[Tensor, "2 edges"]
    ) -> tuple[Float[Tensor, "nodes latent"], Float[Tensor, "nodes latent"]]:
        h = torch.relu(self.first(x, edge_index))
        return self.mean(h, edge_index), self.log_deviation(h, edge_index)

    def loss(
        self, x: Float[Tensor, "nodes inputs"], edge_index: Int64[Tensor, "2 edges"], absent: Int64[Tensor, "2 absent"]
    ) -> Float[Tensor, ""]:
        """That of one draw of the codes, by the global generator, plus :func:`kl_divergence` over the number of nodes.

        As in PyTorch Geometric's example: both terms of the bound are divided by the square of the number of nodes,
        as if the first were a mean over all pairs.
        """
        mean, log_deviation = self(x, edge_index)
        z = mean + log_deviation.exp() * torch.randn_like(mean)
        return reconstruction_loss(z, edge_index, absent) + kl_divergence(mean, log_deviation) / len(x)


def edge_logits(z: Float[Tensor, "nodes latent"], pairs: Int64[Tensor, "2 pairs"]) -> Float[Tensor, " pairs"]:
    r"""Log odds of an edge between each pair: :math:`\operatorname{logit} \Pr(A_{uv} = 1) = \mathbf z_u^\top \mathbf z_v`.

    Args:
        z: codes, shape ``(nodes, latent)``.
        pairs: shape ``(2, pairs)``.

    Raises:
        TypeError, ValueError: as :func:`~deepstat.graphs.message_passing.check_edges`.
    """
    check_edges(pairs, len(z))
    return (z.index_select(0, pairs[0]) * z.index_select(0, pairs[1])).sum(1)


def reconstruction_loss(
    z: Float[Tensor, "nodes latent"], edges: Int64[Tensor, "2 edges"], absent: Int64[Tensor, "2 absent"]
) -> Float[Tensor, ""]:
    r"""Cross-entropy of edges and absent edges, each kind with weight one however rare it is.

    The mean of :math:`-\log \sigma(\mathbf z_u^\top \mathbf z_v)` over edges plus that of
    :math:`-\log (1 - \sigma(\mathbf z_u^\top \mathbf z_v))` over absent ones.

    Args:
        z: codes, shape ``(nodes, latent)``.
        edges: pairs that are joined, shape ``(2, edges)``, at least one.
        absent: pairs that are not, shape ``(2, absent)``, at least one; :func:`absent_pairs` draws some.

    Raises:
        TypeError, ValueError: as :func:`~deepstat.graphs.message_passing.check_edges`; if there is no pair of a kind.
    """
    for name, pairs in (("edges", edges), ("absent", absent)):
        if pairs.shape[-1] == 0:
            raise ValueError(f"{name} must hold at least one pair, got none")
    return -logsigmoid(edge_logits(z, edges)).mean() - logsigmoid(-edge_logits(z, absent)).mean()


def kl_divergence(
    mean: Float[Tensor, "nodes latent"], log_deviation: Float[Tensor, "nodes latent"]
) -> Float[Tensor, ""]:
    r"""From the standard normal distribution, mean over the nodes: :math:`\frac12 \sum_j (\mu_j^2 + \sigma_j^2 - 1 - \log \sigma_j^2)`.

    Args:
        mean: shape ``(nodes, latent)``.
        log_deviation: :math:`\log \sigma`, the same shape.

    Raises:
        ValueError: if the shapes differ.
    """
    if mean.shape != log_deviation.shape:
        raise ValueError(f"log_deviation must have shape {tuple(mean.shape)}, got {tuple(log_deviation.shape)}")
    return 0.5 * (mean.square() + (2 * log_deviation).exp() - 1 - 2 * log_deviation).sum(1).mean()


def absent_pairs(
    edge_index: Int64[Tensor, "2 edges"], nodes: int, count: int, generator: torch.Generator | None = None
) -> Int64[Tensor, "2 count"]:
    """Draw ordered pairs of different nodes that no edge leads between, uniformly and with replacement.

    By rejection, which is fast where most pairs are absent.

    Args:
        edge_index: source and target of each edge, shape ``(2, edges)``; an undirected edge is there twice.
        nodes: number of nodes.
        count: how many to draw.
        generator: of the random numbers, on the CPU.

    Raises:
        TypeError, ValueError: as :func:`~deepstat.graphs.message_passing.check_edges`; if no pair is absent.
    """
    check_edges(edge_index, nodes)
    source, target = edge_index.cpu()
    loops = torch.arange(nodes) * (nodes + 1)
    taken = torch.cat([source * nodes + target, loops]).unique()
    if count > 0 and len(taken) == nodes**2:
        raise ValueError("edge_index must leave a pair of nodes without an edge, got a complete graph")
    found = taken[:0]
    while len(found) < count:
        drawn = torch.randint(nodes**2, (count,), generator=generator)
        found = torch.cat([found, drawn[~torch.isin(drawn, taken)]])
    found = found[:count].to(edge_index.device)
    return torch.stack([found // max(nodes, 1), found % max(nodes, 1)])
