"""PINE: functions of several sets that are invariant within each, such as a node's neighbours of several types.

Chapter: graphs/sets.
"""

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from deepstat.foundations.mlp import find_activation
from deepstat.graphs.message_passing import aggregate, check_features, check_sizes


class ElementMap(nn.Module):
    r"""PINE's map of one element, :math:`\mathbf g(\mathbf x) = \bigl(a(\mathbf u\,\mathbf a_t^\top\mathbf x +
    \mathbf b_t')\bigr)_{t = 1, \dots, T}`.

    Gui et al., *PINE*, 2022. Their :math:`\mathbf u \otimes \mathbf a_t` is the outer product of a column and a row: each
    of the :math:`T` directions :math:`\mathbf a_t` gives one number, and the same slopes :math:`\mathbf u` make
    :math:`U` units of it.

    Args:
        inputs: features of an element, the length of each direction.
        directions: :math:`T`.
        units: :math:`U`, the length of :math:`\mathbf u` and of each :math:`\mathbf b_t'`.
        activation: :math:`a`, as for :class:`MLP`.

    Shapes: ``(n, inputs) -> (n, T * U)``, the units of a direction side by side.

    Raises:
        TypeError: if a size is not an integer or the input not a floating point tensor.
        ValueError: if a size is below one or the input has another shape.
    """

    def __init__(
        self, inputs: int, directions: int, units: int, activation: str | Callable[[Tensor], Tensor] = "relu"
    ):
        super().__init__()
        check_sizes(inputs=inputs, directions=directions, units=units)
        self.activation = find_activation(activation)
        self.directions = nn.Parameter(torch.empty(directions, inputs).uniform_(-1, 1) * (3 / inputs) ** 0.5)
        self.slopes = nn.Parameter(torch.randn(units))
        self.bias = nn.Parameter(torch.empty(directions, units).uniform_(-1, 1))

    def forward(self, x: Float[Tensor, "n inputs"]) -> Float[Tensor, "n features"]:
        check_features(x, self.directions.shape[1])
        projection = x @ self.directions.T  # (n, T)
        z = projection.unsqueeze(-1) * self.slopes + self.bias  # (n, T, U)
        return self.activation(z).flatten(1)


class PINE(nn.Module):
    r"""A function of :math:`K` sets, :math:`\mathbf C\,a(\mathbf W\bar{\mathbf z} + \mathbf b)` with
    :math:`\bar{\mathbf z} = \bigl(\sum_{\mathbf x \in G_k} \mathbf g_k(\mathbf x)\bigr)_{k = 1, \dots, K}`.

    Gui et al., *PINE: Universal Deep Embedding for Graph Nodes via Partial Permutation Invariant Set Functions*, 2022.
    Each :math:`\mathbf g_k` is an :class:`ElementMap`; with one output :math:`\mathbf C` is their :math:`\mathbf c^\top`.

    Args:
        inputs: features of an element, one number a group; their :math:`M_1, \dots, M_K`.
        outputs: numbers that come out.
        directions, units: of each element map.
        hidden: length of :math:`\mathbf b`.
        activation: as for :class:`MLP`.

    Raises:
        TypeError: if a size is not an integer or an input of another type.
        ValueError: if a size is below one, there is no group, or an input has another shape or number of groups.
    """

    def __init__(
        self,
        inputs: Sequence[int],
        outputs: int,
        directions: int = 8,
        units: int = 4,
        hidden: int = 32,
        activation: str | Callable[[Tensor], Tensor] = "relu",
    ):
        super().__init__()
        if len(inputs) < 1:
            raise ValueError("inputs must hold one number for each of at least one group, got none")
        check_sizes(outputs=outputs, hidden=hidden)
        self.element = nn.ModuleList(ElementMap(size, directions, units, activation) for size in inputs)
        self.hidden = nn.Linear(len(inputs) * directions * units, hidden)  # W and b
        self.output = nn.Linear(hidden, outputs, bias=False)  # C
        self.activation = find_activation(activation)

    def forward(
        self, elements: Sequence[Float[Tensor, "_ _"]], edges: Sequence[Int64[Tensor, "2 _"]], nodes: int
    ) -> Float[Tensor, "{nodes} outputs"]:
        r"""One row of outputs for each node, that is, for each collection of :math:`K` groups.

        Args:
            elements: for each group, features of the elements that occur in it, shape ``(n_k, M_k)``.
            edges: for each group, which element (row 0) stands in the group of which node (row 1), shape
                ``(2, edges_k)``, in any order; on a graph the edges from neighbours of kind k. A group may be empty.
            nodes: number of nodes.
        """
        groups = len(self.element)
        if len(elements) != groups or len(edges) != groups:
            raise ValueError(f"elements and edges must hold {groups} groups, got {len(elements)} and {len(edges)}")
        z = [
            aggregate(_members(g(x), pairs), pairs[1], nodes, "sum")
            for g, x, pairs in zip(self.element, elements, edges, strict=True)
        ]
        return self.output(self.activation(self.hidden(torch.cat(z, dim=1))))


def _members(features: Tensor, pairs: Tensor) -> Tensor:
    """The features of the element that each edge starts from."""
    if pairs.dtype != torch.int64:
        raise TypeError(f"edges must be tensors of int64, got {pairs.dtype}")
    if pairs.ndim != 2 or pairs.shape[0] != 2:
        raise ValueError(f"edges must have shape (2, edges), got {tuple(pairs.shape)}")
    if not torch.compiler.is_compiling() and pairs.numel() > 0:
        low, high = torch.stack(pairs[0].aminmax()).tolist()
        if low < 0 or high >= len(features):
            raise ValueError(f"edges must start from elements 0 to {len(features) - 1}, got {low} to {high}")
    return features.index_select(0, pairs[0])
