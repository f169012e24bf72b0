"""Simulated volumes with exact masks, and the sparse annotation of a few slices.

Chapter: vision/segmentation.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float32, Int64, Shaped
from scipy import ndimage
from torch import Tensor

from deepstat.datasets.microscopy import simulated

UNLABELLED = -1


@dataclass(frozen=True, repr=False)
class Volumes:
    """Simulated volumes and the organ in them.

    Args:
        images: grey values, each volume with mean 0 and variance 1, shape ``(n, 1, size, size, size)``.
        labels: 1 in the organ and 0 outside, shape ``(n, size, size, size)``.
    """

    images: Float32[Tensor, "n 1 size size size"]
    labels: Int64[Tensor, "n size size size"]

    def __repr__(self) -> str:
        return f"Volumes(images: {tuple(self.images.shape)}, labels: {tuple(self.labels.shape)})"


def volumes(count: int, seed: int, size: int = 32) -> Volumes:
    """Draw volumes with one blob-like organ, one tube that is as bright, a bias field, blur and noise.

    The organ is an ellipsoid with random axes and a random bumpy surface. The tube crosses the volume; in a single
    slice its cross-section can look like a small organ, and only neighbouring slices tell. It is background.

    Args:
        count: number of volumes, at least 1.
        seed: of everything random; other seeds give other volumes, more volumes leave the first ones as they were.
        size: length of each axis in voxels, at least 16.

    Returns:
        The volumes and their labels.

    Raises:
        ValueError: if an argument is out of range.
    """
    return Volumes(*simulated(_one, count, seed, size))


def annotate(
    labels: Int64[Tensor, "n d h w"], slices: Sequence[Sequence[int]]
) -> Int64[Tensor, "n d h w"]:
    """Keep the labels of some slices and forget the others.

    Args:
        labels: shape ``(n, d, h, w)``.
        slices: for each of the three axes, which slices orthogonal to it are annotated.

    Returns:
        The labels, -1 in voxels that lie in no annotated slice.

    Raises:
        ValueError: if ``slices`` is not three sequences of places within the volume.
    """
    if len(slices) != 3:
        raise ValueError(f"slices must be three sequences, one for each axis, got {len(slices)}")
    known = torch.zeros(labels.shape[1:], dtype=torch.bool, device=labels.device)
    for axis, places in enumerate(slices):
        size = labels.shape[axis + 1]
        for place in places:
            if not 0 <= place < size:
                raise ValueError(f"slices must be from 0 to {size - 1} along axis {axis}, got {place}")
            known.select(axis, place).fill_(True)
    return labels.where(known, UNLABELLED)


def _one(rng: np.random.Generator, size: int) -> tuple[np.ndarray, np.ndarray]:
    """One volume and its labels."""
    grid = np.stack(np.mgrid[:size, :size, :size]).astype(float)
    centre = rng.uniform(0.35, 0.65, 3) * size
    axes = rng.uniform(0.2, 0.33, 3) * size
    rotation, _ = np.linalg.qr(rng.standard_normal((3, 3)))
    offset = np.einsum("ij,jxyz->ixyz", rotation, grid - centre[:, None, None, None])
    bumps = ndimage.gaussian_filter(rng.standard_normal((size,) * 3), 3, mode="wrap")
    radius = np.sqrt(((offset / axes[:, None, None, None]) ** 2).sum(0))
    label = radius < 1 + 0.15 * bumps / bumps.std()
    parts, number = ndimage.label(label)
    label = parts == 1 + np.bincount(parts.ravel())[1:].argmax()  # without crumbs
    tube = _tube(rng, grid, size) & ~ndimage.binary_dilation(label, iterations=1)
    field = ndimage.gaussian_filter(rng.standard_normal((size,) * 3), size / 4, mode="wrap")
    image = 1 + 0.6 * (label | tube) + 0.15 * field / field.std()
    image = ndimage.gaussian_filter(image, 0.8) + 0.2 * rng.standard_normal((size,) * 3)
    return (image - image.mean()) / image.std(), label.astype(np.int64)


def _tube(rng: np.random.Generator, grid: Shaped[np.ndarray, "3 d h w"], size: int) -> np.ndarray:
    """Voxels within two or three voxels of a random line."""
    through = rng.uniform(0.15, 0.85, 3) * size
    direction = rng.standard_normal(3)
    direction /= np.linalg.norm(direction)
    offset = grid - through[:, None, None, None]
    along = np.einsum("i,ixyz->xyz", direction, offset)
    return np.sqrt(np.maximum((offset**2).sum(0) - along**2, 0)) < rng.uniform(0.06, 0.09) * size
