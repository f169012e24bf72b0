"""Regularization: penalties and their steps, dropout, shrinkage factors, bias and variance, ensembles.

Chapter: foundations/regularization.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from deepstat.foundations.mlp import check_widths, find_activation


def l2_penalty(parameters: Iterable[Tensor]) -> Float[Tensor, ""]:
    r""":math:`\frac12 \sum_j \theta_j^2`, whose gradient is :math:`\boldsymbol\theta`. Hoerl and Kennard, 1970.

    Args:
        parameters: tensors of any shapes, at least one; by custom weights and not biases.

    Raises:
        TypeError: if ``parameters`` is a module or a single tensor.
        ValueError: if there are none.
    """
    return 0.5 * sum(p.square().sum() for p in _listed(parameters))


def l1_penalty(parameters: Iterable[Tensor]) -> Float[Tensor, ""]:
    r""":math:`\sum_j \lvert\theta_j\rvert`. Tibshirani, 1996.

    Args:
        parameters: as for :func:`l2_penalty`.

    Raises:
        TypeError, ValueError: as :func:`l2_penalty`.
    """
    return sum(p.abs().sum() for p in _listed(parameters))


def elastic_net_penalty(parameters: Iterable[Tensor], share: float = 0.5) -> Float[Tensor, ""]:
    r""":math:`\alpha \sum_j \lvert\theta_j\rvert + \frac{1 - \alpha}{2} \sum_j \theta_j^2`.

    Zou and Hastie, *Regularization and Variable Selection via the Elastic Net*, 2005, the naive form; the halves are
    scikit-learn's, whose ``l1_ratio`` is our ``share``.

    Args:
        parameters: as for :func:`l2_penalty`.
        share: :math:`\alpha`, from 0 (L2) to 1 (L1).

    Raises:
        TypeError, ValueError: as :func:`l2_penalty`, and if ``share`` is not in [0, 1].
    """
    if not 0 <= share <= 1:
        raise ValueError(f"share must be in [0, 1], got {share}")
    parameters = _listed(parameters)
    return share * l1_penalty(parameters) + (1 - share) * l2_penalty(parameters)


def soft_threshold(
    x: Float[Tensor, "*shape"], threshold: float
) -> Float[Tensor, "*shape"]:
    r""":math:`\operatorname{sign}(x_j) \max(0, \lvert x_j\rvert - t)`, the proximal step of :math:`t` times L1.

    The minimizer over :math:`u` of :math:`\frac12 \lVert u - x\rVert^2 + t \lVert u\rVert_1`.

    Args:
        x: any shape.
        threshold: :math:`t`, at least 0.

    Raises:
        ValueError: if ``threshold`` is negative or NaN.
    """
    if not threshold >= 0:
        raise ValueError(f"threshold must be at least 0, got {threshold}")
    return x.sign() * (x.abs() - threshold).clamp(min=0)


class Dropout(nn.Module):
    r"""Sets each entry to zero with probability :math:`p` in training, and divides the others by :math:`1 - p`.

    Srivastava et al., *Dropout: A Simple Way to Prevent Neural Networks from Overfitting*, 2014, in the form of their
    section 10, "inverted": with :math:`m_j` independent Bernoulli(:math:`1 - p`), :math:`x_j \mapsto m_j x_j / (1 - p)`
    has mean :math:`x_j`, and evaluation mode is the identity. (Their :math:`p` is the probability to *keep*.)

    Args:
        p: probability to drop an entry, at least 0 and below 1.
        generator: where the masks come from, on the device of the input; PyTorch's global one if not given.

    Shapes: any.

    Raises:
        ValueError: if ``p`` is out of range.
    """

    def __init__(self, p: float = 0.5, generator: torch.Generator | None = None):
        super().__init__()
        if not 0 <= p < 1:
            raise ValueError(f"p must be at least 0 and below 1, got {p}")
        self.p, self.generator = p, generator

    def forward(self, x: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        if not self.training or self.p == 0:
            return x
        draw = torch.rand(x.shape, generator=self.generator, device=x.device)
        return x * (draw >= self.p) / (1 - self.p)


class Ensemble(nn.Module):
    r"""Independent multilayer perceptrons of one shape, evaluated side by side.

    Member :math:`r` is ``MLP(widths, activation)`` with its own parameters ``weight[k][r]``
    (:math:`\boldsymbol\Omega_k^\top`) and ``bias[k][r, 0]``. A loss that adds up the members' losses trains each as
    if it were alone.

    Args:
        members: number of networks, at least 1.
        widths: as for ``MLP``.
        activation: as for ``MLP``.
        dropout: probability with which a hidden unit is dropped in training.

    Shapes: ``(n, D_i)``, the same input for all, or ``(members, n, D_i)`` ``-> (members, n, D_o)``.

    Raises:
        TypeError: if ``members`` or a width is not an integer, or ``activation`` is neither a name nor callable.
        ValueError: if a number is out of range or the input has another shape.
    """

    def __init__(
        self,
        members: int,
        widths: Sequence[int],
        activation: str | Callable[[Tensor], Tensor] = "relu",
        dropout: float = 0.0,
    ):
        super().__init__()
        if isinstance(members, bool) or not isinstance(members, int):
            raise TypeError(f"members must be an integer, got {type(members).__name__}")
        if members < 1:
            raise ValueError(f"members must be at least 1, got {members}")
        self.members, self.widths = members, check_widths(widths)
        self.activation = find_activation(activation)
        self.dropout = Dropout(dropout)
        self.weight, self.bias = nn.ParameterList(), nn.ParameterList()
        for inputs, outputs in zip(self.widths[:-1], self.widths[1:], strict=True):
            bound = inputs**-0.5  # as nn.Linear starts
            for parameters, rows in ((self.weight, inputs), (self.bias, 1)):
                start = torch.empty(members, rows, outputs).uniform_(-bound, bound)
                parameters.append(nn.Parameter(start))

    def forward(
        self, x: Float[Tensor, "*batch inputs"]
    ) -> Float[Tensor, "members n outputs"]:
        m, d = self.members, self.widths[0]
        if x.ndim not in (2, 3) or (*x.shape[:-2], x.shape[-1]) not in ((d,), (m, d)):
            got = tuple(x.shape)
            raise ValueError(f"x must have shape (n, {d}) or ({m}, n, {d}), got {got}")
        h = x if x.ndim == 3 else x.expand(self.members, *x.shape)
        for weight, bias in zip(self.weight[:-1], self.bias[:-1], strict=True):
            h = self.dropout(self.activation(torch.baddbmm(bias, h, weight)))
        return torch.baddbmm(self.bias[-1], h, self.weight[-1])


def ridge_factors(
    eigenvalues: Float[Tensor, " d"], penalty: float
) -> Float[Tensor, " d"]:
    r""":math:`s_j / (s_j + \lambda)`: what ridge regression leaves of the least-squares fit, direction by direction.

    Of the criterion :math:`\frac{1}{2n}\lVert\mathbf y - \mathbf X\mathbf w\rVert^2 + \frac\lambda2\lVert\mathbf
    w\rVert^2`. The sum of the factors is the effective number of parameters.

    Args:
        eigenvalues: :math:`s_j` of :math:`\mathbf X^\top\mathbf X / n`, shape ``(d,)``, at least 0.
        penalty: :math:`\lambda > 0`.

    Raises:
        ValueError: if an eigenvalue is negative or ``penalty`` is not positive.
    """
    _check_eigenvalues(eigenvalues)
    if not penalty > 0:
        raise ValueError(f"penalty must be positive, got {penalty}")
    return eigenvalues / (eigenvalues + penalty)


def gradient_descent_factors(
    eigenvalues: Float[Tensor, " d"], learning_rate: float, steps: int
) -> Float[Tensor, " d"]:
    r""":math:`1 - (1 - \eta s_j)^t`: what :math:`t` steps of gradient descent from zero reach of the least-squares fit.

    Of the criterion :math:`\frac{1}{2n}\lVert\mathbf y - \mathbf X\mathbf w\rVert^2`.

    Args:
        eigenvalues: :math:`s_j` of :math:`\mathbf X^\top\mathbf X / n`, shape ``(d,)``, at least 0.
        learning_rate: :math:`\eta > 0`, with :math:`\eta s_j \le 1` for all :math:`j`, so that no step overshoots.
        steps: :math:`t`, at least 0.

    Raises:
        ValueError: if a number is out of range.
    """
    _check_eigenvalues(eigenvalues)
    if not (learning_rate > 0 and (learning_rate * eigenvalues <= 1 + 1e-6).all()):
        top = 1 / eigenvalues.max().item()
        raise ValueError(f"learning_rate must be positive and at most {top:.4g}, got {learning_rate}")
    if steps < 0:
        raise ValueError(f"steps must be at least 0, got {steps}")
    return 1 - (1 - learning_rate * eigenvalues) ** steps


class Decomposition(NamedTuple):
    """Squared bias, variance and their sum, the mean squared error about the truth, each with its standard error."""

    bias2: float
    variance: float
    error: float
    bias2_se: float
    variance_se: float
    error_se: float


def bias_variance(
    predictions: Float[Tensor, "repeats n"], truth: Float[Tensor, " n"]
) -> Decomposition:
    r"""Squared bias and variance of a fitting method, averaged over inputs, from independent repetitions.

    With :math:`e_r = \hat f_r - f`, the estimates are the U-statistics :math:`\binom R2^{-1} \sum_{r<s} e_r e_s` for
    the squared bias and :math:`\binom R2^{-1} \sum_{r<s} \frac12 (e_r - e_s)^2` for the variance: unbiased, where
    the square of the mean error would contain :math:`1/R` of the variance. So the squared bias may come out negative.
    The standard errors are the jackknife's over the repetitions. Geman, Bienenstock and Doursat, 1992, have the
    decomposition.

    Args:
        predictions: :math:`\hat f_r(\mathbf x_i)` of fits to independent samples, shape ``(repeats, n)``.
        truth: :math:`f(\mathbf x_i) = \mathbb E(Y \mid \mathbf x_i)`, shape ``(n,)``.

    Raises:
        ValueError: if there are fewer than three repetitions or the shapes do not match.
    """
    if predictions.ndim != 2 or len(predictions) < 3:
        got = tuple(predictions.shape)
        raise ValueError(f"predictions must have shape (repeats, n), 3 repeats or more, got {got}")
    if truth.shape != predictions.shape[1:]:
        n, got = predictions.shape[1], tuple(truth.shape)
        raise ValueError(f"truth must have shape ({n},), got {got}")
    e = (predictions - truth).double()
    gram = e @ e.T / e.shape[1]  # (repeats, repeats): mean products of errors
    r, own = len(e), gram.diagonal()
    products, squares = gram.sum() - own.sum(), own.sum()
    left_products = products - 2 * (gram.sum(1) - own)  # without each repetition in turn
    left_squares = squares - own

    def estimates(products: Tensor, squares: Tensor, r: int) -> Tensor:
        bias2, error = products / (r * (r - 1)), squares / r
        return torch.stack([bias2, error - bias2, error])

    values = estimates(products, squares, r)
    left = estimates(left_products, left_squares, r - 1)  # (3, repeats)
    errors = ((r - 1) * left.var(1, correction=0)).sqrt()
    return Decomposition(*values.tolist(), *errors.tolist())


def _listed(parameters: Iterable[Tensor]) -> list[Tensor]:
    """The parameters as a list, refusing what only looks like one."""
    listed = list(parameters) if isinstance(parameters, Iterable) and not isinstance(parameters, Tensor) else None
    if listed is None or not all(isinstance(p, Tensor) for p in listed):
        raise TypeError(f"parameters must be several tensors, such as Ensemble.weight, got {type(parameters).__name__}")
    if not listed:
        raise ValueError("parameters must hold at least one tensor, got none (a generator that is used up?)")
    return listed


def _check_eigenvalues(eigenvalues: Tensor) -> None:
    if not (eigenvalues >= 0).all():
        raise ValueError(f"eigenvalues must be at least 0, got {eigenvalues.tolist()[:5]}")
