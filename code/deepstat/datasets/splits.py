"""Training and test sets as indices: random, reproducible, stratified if asked; intervals for results over them.

Chapter: reading_this_book.
"""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Int64, Shaped
from scipy import stats
from torch import Tensor

Split = tuple[Int64[Tensor, " train"], Int64[Tensor, " test"]]


def train_test(n: int, test_fraction: float, seed: int, stratify: Shaped[Tensor, " n"] | None = None) -> Split:
    """One random split of the rows ``0, ..., n - 1`` into a training and a test set.

    The first of :func:`repeated_splits` with the same arguments.

    Args:
        n: number of rows, at least 2.
        test_fraction: share of the rows to test on, between 0 and 1. The number of test rows is rounded to the
            nearest integer but never leaves either set empty.
        seed: of the random choice.
        stratify: one class label a row, shape ``(n,)``; the fraction is then taken within each class, each of
            which has at least one row in both sets.

    Returns:
        ``(train, test)``: two sorted, disjoint index tensors that together hold every row once.

    Raises:
        TypeError: if ``n`` or ``seed`` is not an integer or ``stratify`` is not a tensor.
        ValueError: if a number is out of range, ``stratify`` has another shape than ``(n,)``, or a class has fewer
            than two members.
    """
    return repeated_splits(n, test_fraction, 1, seed, stratify)[0]


def repeated_splits(
    n: int, test_fraction: float, repeats: int, seed: int, stratify: Shaped[Tensor, " n"] | None = None
) -> list[Split]:
    """Independent random splits of the same rows, to see how much a result depends on the split.

    With the same seed, more repeats leave the first ones as they were. The splits share rows, so their results are
    not independent: an interval from them is rough (Nadeau and Bengio, *Inference for the Generalization Error*,
    Machine Learning 52, 2003).

    Args:
        n: number of rows, at least 2.
        test_fraction: share of the rows to test on, between 0 and 1.
        repeats: number of splits, at least 1.
        seed: of the random choices.
        stratify: one class label a row, shape ``(n,)``, as in :func:`train_test`.

    Returns:
        A list of ``repeats`` pairs ``(train, test)``, as in :func:`train_test`.

    Raises:
        TypeError, ValueError: as :func:`train_test`, and if ``repeats`` is not an integer or below 1.
    """
    for name, value, least in (("n", n, 2), ("repeats", repeats, 1), ("seed", seed, 0)):
        if isinstance(value, bool) or not isinstance(value, int):
            raise TypeError(f"{name} must be an integer, got {type(value).__name__}")
        if value < least:
            raise ValueError(f"{name} must be at least {least}, got {value}")
    if not 0 < test_fraction < 1:
        raise ValueError(f"test_fraction must be between 0 and 1, got {test_fraction}")
    groups = [torch.arange(n)] if stratify is None else _classes(n, stratify)
    generator = torch.Generator().manual_seed(seed)
    return [_split(groups, test_fraction, generator) for _ in range(repeats)]


def paired_interval(
    difference: np.ndarray | Tensor | Sequence[float], test_share: float, level: float = 0.95
) -> tuple[float, float]:
    r"""Interval for the mean difference of two methods' results over repeated random splits.

    Splits share rows, so the usual t-interval is too short. Nadeau and Bengio, *Inference for the Generalization
    Error*, Machine Learning 52, 2003, section 3, replace the variance :math:`s^2 / J` of the mean by
    :math:`(1/J + n_2/n_1)\,s^2`, where :math:`n_1` rows train and :math:`n_2` test. An approximation, not a theorem.

    Args:
        difference: result of one method minus that of the other, one number a split, shape ``(J,)``, J at least 2.
        test_share: share of the rows that is tested on, :math:`n_2 / (n_1 + n_2)`, between 0 and 1.
        level: confidence level, between 0 and 1.

    Returns:
        ``(low, high)``, in the units of ``difference``.

    Raises:
        ValueError: if there are fewer than two differences, one is not finite, or a share is out of range.
    """
    values = np.asarray(difference, dtype=float)
    if values.ndim != 1 or len(values) < 2:
        raise ValueError(f"difference must be one number a split, at least two, got shape {values.shape}")
    if not np.isfinite(values).all():
        raise ValueError("difference must be finite")
    for name, value in (("test_share", test_share), ("level", level)):
        if not 0 < value < 1:
            raise ValueError(f"{name} must be between 0 and 1, got {value}")
    repeats = len(values)
    variance = values.var(ddof=1) * (1 / repeats + test_share / (1 - test_share))
    half = stats.t.ppf((1 + level) / 2, repeats - 1) * variance**0.5
    return float(values.mean() - half), float(values.mean() + half)


def crossed_interval(difference: np.ndarray | Tensor, level: float = 0.95) -> tuple[float, float]:
    r"""Interval for the mean difference of two methods, fitted on disjoint training sets, tested on the same rows.

    Row :math:`r` of ``difference`` belongs to a training set, column :math:`i` to a test row. Model: two crossed
    random effects, :math:`d_{ri} = \mu + a_r + b_i + e_{ri}`, all independent with mean zero; the test rows are a
    sample too. With :math:`R` sets and :math:`n` test rows the variance of the overall mean is
    :math:`\sigma_a^2/R + \sigma_b^2/n + \sigma_e^2/(Rn)`. It is estimated by the variance of the :math:`R` row means
    over :math:`R` plus that of the :math:`n` column means over :math:`n`, which counts the last term twice: too long
    rather than too short. The t distribution with :math:`R - 1` degrees of freedom is an approximation, not a
    theorem. On the model: Owen, *The Pigeonhole Bootstrap*, Annals of Applied Statistics 1, 2007.

    Where training sets share rows, use :func:`paired_interval`.

    Args:
        difference: result of one method minus that of the other, such as the difference of their errors on each test
            row, shape ``(R, n)``, both at least 2.
        level: confidence level, between 0 and 1.

    Returns:
        ``(low, high)``, in the units of ``difference``.

    Raises:
        ValueError: if the shape is another, a difference is not finite, or ``level`` is out of range.
    """
    values = np.asarray(difference, dtype=float)
    if values.ndim != 2 or min(values.shape) < 2:
        raise ValueError(f"difference must have shape (sets, test rows), both at least 2, got {values.shape}")
    if not np.isfinite(values).all():
        raise ValueError("difference must be finite")
    if not 0 < level < 1:
        raise ValueError(f"level must be between 0 and 1, got {level}")
    variance = sum(values.mean(axis).var(ddof=1) / values.shape[1 - axis] for axis in (0, 1))
    half = stats.t.ppf((1 + level) / 2, len(values) - 1) * variance**0.5
    return float(values.mean() - half), float(values.mean() + half)


def _classes(n: int, labels: Tensor) -> list[Tensor]:
    """The rows of each class."""
    if not isinstance(labels, Tensor):
        raise TypeError(f"stratify must be a tensor of labels, got {type(labels).__name__}")
    if labels.shape != (n,):
        raise ValueError(f"stratify must have shape ({n},), one label a row, got {tuple(labels.shape)}")
    names, counts = labels.unique(return_counts=True)
    if counts.min() < 2:
        name = names[counts.argmin()].item()
        raise ValueError(f"stratify must have at least two rows of every class, got one of class {name}")
    return [(labels == name).nonzero().squeeze(1).cpu() for name in names]


def _split(groups: list[Tensor], test_fraction: float, generator: torch.Generator) -> Split:
    train, test = [], []
    for rows in groups:
        rows = rows[torch.randperm(len(rows), generator=generator)]
        held_out = min(max(round(test_fraction * len(rows)), 1), len(rows) - 1)
        test.append(rows[:held_out])
        train.append(rows[held_out:])
    return torch.cat(train).sort().values, torch.cat(test).sort().values
