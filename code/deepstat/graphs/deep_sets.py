"""Networks for sets: invariant ones, which pool, and the equivariant layer; power sums and their inverse.

Chapter: graphs/sets.
"""

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from deepstat.foundations.mlp import MLP
from deepstat.graphs.message_passing import check_sizes

POOLS = ("sum", "mean", "max")


def pool(
    h: Float[Tensor, "*batch elements d"], how: str = "sum", mask: Bool[Tensor, "*batch elements"] | None = None
) -> Float[Tensor, "*batch d"]:
    """Sum, mean or largest value over the elements of each set, feature by feature.

    Args:
        h: features of the elements, shape ``(..., elements, d)``.
        how: ``"sum"``, ``"mean"`` or ``"max"``.
        mask: true for elements that are there, false for padding, shape ``(..., elements)``; all are there if not
            given.

    Returns:
        One row a set, shape ``(..., d)``. An empty set gives 0.

    Raises:
        TypeError: if ``mask`` is not boolean.
        ValueError: if ``how`` is unknown or a shape is not as above.
    """
    if how not in POOLS:
        raise ValueError(f"how must be one of {', '.join(POOLS)}, got {how!r}")
    if h.ndim < 2:
        raise ValueError(f"h must have shape (..., elements, d), got {tuple(h.shape)}")
    if h.shape[-2] == 0:
        return h.sum(-2)
    if mask is None:
        return {"sum": h.sum, "mean": h.mean, "max": h.amax}[how](-2)
    _check_mask(mask, h)
    there = mask.unsqueeze(-1)  # (..., elements, 1)
    if how == "max":
        largest = h.masked_fill(~there, float("-inf")).amax(-2)
        return largest.masked_fill(~there.any(-2), 0.0)
    total = h.masked_fill(~there, 0.0).sum(-2)
    return total if how == "sum" else total / there.sum(-2).clamp(min=1).to(h.dtype)


class DeepSets(nn.Module):
    r"""An invariant function of a set, :math:`f(X) = \rho\bigl(\sum_{x \in X} \phi(x)\bigr)`.

    Zaheer, Kottur, Ravanbakhsh, Póczos, Salakhutdinov and Smola, *Deep Sets*, 2017, Theorem 2. :math:`\phi` and
    :math:`\rho` are multilayer perceptrons; ``"mean"`` and ``"max"`` replace the sum.

    Args:
        element: widths of :math:`\phi`, from the features of an element to the latent dimension.
        readout: widths of :math:`\rho`, from the latent dimension to the outputs.
        how: the pooling, one of ``POOLS``.
        activation: of both networks, as for :class:`MLP`.

    Shapes: ``(..., elements, inputs) -> (..., outputs)``, with a mask as for :func:`pool`. What stands in the
    padding has no influence.

    Raises:
        TypeError: if a width is not an integer or a mask is not boolean.
        ValueError: if a width is below one, the two latent dimensions differ, ``how`` is unknown, or an input has
            another shape.
    """

    def __init__(
        self,
        element: Sequence[int],
        readout: Sequence[int],
        how: str = "sum",
        activation: str | Callable[[Tensor], Tensor] = "relu",
    ):
        super().__init__()
        if how not in POOLS:
            raise ValueError(f"how must be one of {', '.join(POOLS)}, got {how!r}")
        self.phi = MLP(element, activation)
        self.rho = MLP(readout, activation)
        if self.phi.widths[-1] != self.rho.widths[0]:
            raise ValueError(
                f"readout must start with the latent dimension {self.phi.widths[-1]}, got {self.rho.widths[0]}"
            )
        self.how = how

    def forward(
        self, x: Float[Tensor, "*batch elements inputs"], mask: Bool[Tensor, "*batch elements"] | None = None
    ) -> Float[Tensor, "*batch outputs"]:
        _check_elements(x, self.phi.widths[0])
        return self.rho(pool(self.phi(_without_padding(x, mask)), self.how, mask))


class EquivariantLinear(nn.Module):
    r"""The affine maps of a set to a set that commute with permutations, :math:`\mathbf y_i = \boldsymbol\Lambda
    \mathbf x_i + \boldsymbol\Gamma \sum_j \mathbf x_j + \boldsymbol\beta`.

    Zaheer et al., *Deep Sets*, 2017, Lemma 3; with one feature the matrix :math:`\lambda\mathbf I +
    \gamma\mathbf 1\mathbf 1^\top`. With ``how`` other than ``"sum"`` the pooled features replace the sum: ``"mean"``
    divides :math:`\gamma` by the number of elements, ``"max"`` is equivariant but not linear.

    Args:
        inputs: features of an element.
        outputs: features of an element of the result.
        how: the pooling, one of ``POOLS``.

    Shapes: ``(..., elements, inputs) -> (..., elements, outputs)``, with a mask as for :func:`pool`; rows of the
    padding are 0.

    Raises:
        TypeError: if a size is not an integer or a mask is not boolean.
        ValueError: if a size is below one, ``how`` is unknown, or an input has another shape.
    """

    def __init__(self, inputs: int, outputs: int, how: str = "sum"):
        super().__init__()
        check_sizes(inputs=inputs, outputs=outputs)
        if how not in POOLS:
            raise ValueError(f"how must be one of {', '.join(POOLS)}, got {how!r}")
        self.own = nn.Linear(inputs, outputs)  # Lambda and beta
        self.shared = nn.Linear(inputs, outputs, bias=False)  # Gamma
        self.how = how

    def forward(
        self, x: Float[Tensor, "*batch elements inputs"], mask: Bool[Tensor, "*batch elements"] | None = None
    ) -> Float[Tensor, "*batch elements outputs"]:
        _check_elements(x, self.own.in_features)
        x = _without_padding(x, mask)
        y = self.own(x) + self.shared(pool(x, self.how, mask)).unsqueeze(-2)
        return _without_padding(y, mask)


def power_sums(x: Float[Tensor, "*batch elements"], degree: int) -> Float[Tensor, "*batch degree"]:
    r"""The power sums :math:`p_k = \sum_m x_m^k` for :math:`k = 1, \dots,` ``degree``.

    Args:
        x: real elements of each set, shape ``(..., elements)``.
        degree: the highest power, at least 1.

    Raises:
        ValueError: if ``degree`` is below one.
    """
    if degree < 1:
        raise ValueError(f"degree must be at least 1, got {degree}")
    powers = torch.arange(1, degree + 1, device=x.device)
    return (x.unsqueeze(-1) ** powers).sum(-2)


def from_power_sums(p: Float[Tensor, "*batch degree"]) -> Float[Tensor, "*batch degree"]:
    r"""The set of real numbers with given power sums, in increasing order.

    Newton's identities :math:`k e_k = \sum_{i=1}^k (-1)^{i-1} e_{k-i}\, p_i` give the elementary symmetric polynomials
    :math:`e_k`, and the elements are the roots of :math:`\sum_k (-1)^k e_k t^{M-k}`, found as eigenvalues of its
    companion matrix. If no such real set exists, as after rounding, the real parts of the roots come back.

    Args:
        p: :math:`p_1, \dots, p_M`, shape ``(..., M)``, float32 or float64. Errors grow exponentially in ``M``.

    Returns:
        The ``M`` elements, shape ``(..., M)``.

    Raises:
        ValueError: if there are no power sums.
    """
    if p.ndim < 1 or p.shape[-1] < 1:
        raise ValueError(f"p must have shape (..., M) with M of at least 1, got {tuple(p.shape)}")
    size = p.shape[-1]
    e = [torch.ones_like(p[..., 0])]
    for k in range(1, size + 1):
        terms = [(-1) ** (i - 1) * e[k - i] * p[..., i - 1] for i in range(1, k + 1)]
        e.append(torch.stack(terms).sum(0) / k)
    companion = torch.diag(p.new_ones(size - 1), -1).expand(*p.shape, size).clone()
    companion[..., 0, :] = torch.stack([(-1) ** (k - 1) * e[k] for k in range(1, size + 1)], -1)
    return torch.linalg.eigvals(companion).real.sort(-1).values


def _check_elements(x: Tensor, inputs: int) -> None:
    if x.ndim < 2 or x.shape[-1] != inputs:
        raise ValueError(f"x must have shape (..., elements, {inputs}), got {tuple(x.shape)}")


def _check_mask(mask: Tensor, h: Tensor) -> None:
    if mask.dtype != torch.bool:
        raise TypeError(f"mask must be boolean, got {mask.dtype}")
    if mask.shape != h.shape[:-1]:
        raise ValueError(f"mask must have shape {tuple(h.shape[:-1])}, got {tuple(mask.shape)}")


def _without_padding(x: Tensor, mask: Tensor | None) -> Tensor:
    """Zeros where there is no element."""
    if mask is None:
        return x
    _check_mask(mask, x)
    return x.masked_fill(~mask.unsqueeze(-1), 0.0)
