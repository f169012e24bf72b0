"""Simulated microscopy: crowded cells with exact masks, and the weight map of the U-Net paper.

Chapter: vision/segmentation.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Float32, Int64, Integer
from scipy import ndimage
from torch import Tensor

_NEIGHBOURS = ((0, 1), (0, -1), (1, 0), (-1, 0))


@dataclass(frozen=True, repr=False)
class Cells:
    """Simulated images of cells and what is in them.

    Args:
        images: grey values, each image with mean 0 and variance 1, shape ``(n, 1, size, size)``.
        labels: which cell a pixel belongs to, 1, 2, ..., and 0 for background; shape ``(n, size, size)``. Pixels of
            different cells are never next to each other: at least one background pixel lies between.
    """

    images: Float32[Tensor, "n 1 size size"]
    labels: Int64[Tensor, "n size size"]

    @property
    def masks(self) -> Int64[Tensor, "n size size"]:
        """1 in a cell and 0 in the background."""
        return (self.labels > 0).long()

    def __repr__(self) -> str:
        return f"Cells(images: {tuple(self.images.shape)}, labels: {tuple(self.labels.shape)})"


def cells(count: int, seed: int, size: int = 64) -> Cells:
    """Draw images of crowded cells, 6 to 12 on 64 × 64 pixels, with low contrast, uneven light, blur, debris and noise.

    A cell is a blob with a smooth random outline. A blob that would cover more than a third of what it meets is not
    placed; where two touch, a line of background one pixel wide is kept between them. A cell's interior is textured and
    a little or much brighter than the background; its outermost pixels, the membrane, are dark. The debris,
    specks of at most two pixels' radius, is as bright as the cells and is background.

    Args:
        count: number of images, at least 1.
        seed: of everything random; other seeds give other images, more images leave the first ones as they were.
        size: height and width in pixels, at least 16.

    Returns:
        The images, their labels and masks.

    Raises:
        ValueError: if an argument is out of range.
    """
    return Cells(*simulated(_one, count, seed, size))


def simulated(
    draw: Callable[[np.random.Generator, int], tuple[np.ndarray, np.ndarray]], count: int, seed: int, size: int
) -> tuple[Float32[Tensor, "n 1 *space"], Int64[Tensor, "n *space"]]:
    """Images and labels that ``draw`` gives, each with its own random numbers; arguments as of :func:`cells`."""
    for name, value, least in (("count", count, 1), ("seed", seed, 0), ("size", size, 16)):
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise ValueError(f"{name} must be an integer of at least {least}, got {value!r}")
    drawn = [draw(np.random.default_rng([seed, place]), size) for place in range(count)]
    images, labels = (torch.tensor(np.stack(arrays)) for arrays in zip(*drawn, strict=True))
    return images.float().unsqueeze(1), labels


def border_weights(
    labels: Integer[Tensor, "n height width"], w0: float = 10.0, sigma: float = 5.0
) -> Float[Tensor, "n height width"]:
    r"""Weights of the pixels, large in the background between close cells.

    Ronneberger, Fischer and Brox, *U-Net*, 2015, equation (2):
    :math:`w = w_c + w_0 \exp(-(d_1 + d_2)^2 / (2\sigma^2))`, where :math:`d_1` and :math:`d_2` are the distances to the
    nearest and the second nearest cell and :math:`w_c` balances the classes: one half over the share of the pixel's class,
    cell or background, among all pixels given. The second term is left out in cells, and in images of fewer than two.

    Args:
        labels: 0 for background, else the cell; shape ``(n, height, width)``.
        w0: :math:`w_0 \ge 0`; the paper's value is the default.
        sigma: :math:`\sigma > 0` in pixels; the paper's value is the default.

    Returns:
        The weights in float32, shape ``(n, height, width)``.

    Raises:
        ValueError: if ``w0`` is negative or ``sigma`` not positive.
    """
    if not 0 <= w0 < math.inf:
        raise ValueError(f"w0 must be at least 0 and finite, got {w0}")
    if not 0 < sigma < math.inf:
        raise ValueError(f"sigma must be positive and finite, got {sigma}")
    cell = (labels > 0).cpu().numpy()
    share = min(max(cell.mean(), 1e-9), 1 - 1e-9)
    maps = []
    for label in labels.cpu().numpy():
        names = [k for k in np.unique(label) if k > 0]
        weight = np.where(label > 0, 0.5 / share, 0.5 / (1 - share))
        if len(names) > 1:
            distances = np.stack([ndimage.distance_transform_edt(label != k) for k in names])
            d1, d2 = np.partition(distances, 1, axis=0)[:2]
            weight += w0 * np.exp(-((d1 + d2) ** 2) / (2 * sigma**2)) * (label == 0)
        maps.append(torch.tensor(weight, dtype=torch.float32))
    return torch.stack(maps).to(labels.device)


def _one(rng: np.random.Generator, size: int) -> tuple[np.ndarray, np.ndarray]:
    """One image and its labels."""
    label = np.zeros((size, size), dtype=np.int64)
    wanted, tries, placed = rng.uniform(6, 12) * (size / 64) ** 2, 0, 0
    while placed < wanted and tries < 100:
        tries += 1
        blob = _blob(rng, size, rng.uniform(5, 9))
        free = blob & (label == 0)
        if blob.sum() > 0 and free.sum() > 2 / 3 * blob.sum():
            placed += 1
            label[free] = placed
    label[_between(label)] = 0
    label = _largest_parts(label)
    rows, columns = np.mgrid[:size, :size] / size - 0.5
    light = 1 + rng.uniform(-0.6, 0.6) * rows + rng.uniform(-0.6, 0.6) * columns
    brightness = np.concatenate([[0.0], rng.uniform(0.05, 0.5, label.max() + 1)])
    texture = ndimage.gaussian_filter(rng.standard_normal((size, size)), 1.5) * 0.3
    image = 1 + brightness[label] + texture * (label > 0)
    image[(label > 0) & (ndimage.minimum_filter(label, 3) != ndimage.maximum_filter(label, 3))] = 0.6
    for _ in range(rng.integers(4, 10)):
        speck = _blob(rng, size, rng.uniform(0.8, 2.0)) & (label == 0)
        image[speck] += rng.uniform(0.3, 0.9)
    image = ndimage.gaussian_filter(image * light, 0.9) + 0.08 * rng.standard_normal((size, size))
    return (image - image.mean()) / image.std(), label


def _blob(rng: np.random.Generator, size: int, radius: float) -> np.ndarray:
    """Pixels inside of a smooth random outline."""
    row, column = rng.uniform(0, size, 2)
    rows, columns = np.mgrid[:size, :size]
    angle = np.arctan2(rows - row, columns - column)
    outline = np.ones((size, size))
    for order in (2, 3, 4):
        outline += rng.normal(0, 0.1) * np.cos(order * angle + rng.uniform(0, 2 * np.pi))
    return np.hypot(rows - row, columns - column) <= radius * outline


def _between(label: np.ndarray) -> np.ndarray:
    """Pixels of a cell with a pixel of an earlier cell (a smaller label) next to them, corners included."""
    touching = np.zeros(label.shape, dtype=bool)
    around = np.pad(label, 1)
    height, width = label.shape
    for row in range(3):
        for column in range(3):
            other = around[row : row + height, column : column + width]
            touching |= (other > 0) & (other < label)
    return touching


def _largest_parts(label: np.ndarray) -> np.ndarray:
    """Each cell reduced to its largest connected part, renumbered; parts below 12 pixels are dropped."""
    result = np.zeros_like(label)
    for k in range(1, label.max() + 1):
        parts, number = ndimage.label(label == k)
        if number:
            sizes = np.bincount(parts.ravel())[1:]
            if sizes.max() >= 12:
                result[parts == 1 + sizes.argmax()] = result.max() + 1
    return result
