import numpy as np
import pytest
import torch
from scipy import ndimage

from deepstat.datasets.microscopy import border_weights, cells
from helpers import refuses


@pytest.fixture(scope="module")
def sample():
    return cells(30, 0)


def test_shapes_and_values(sample):
    assert sample.images.shape == (30, 1, 64, 64)
    assert sample.labels.shape == sample.masks.shape == (30, 64, 64)
    assert repr(sample) == "Cells(images: (30, 1, 64, 64), labels: (30, 64, 64))"
    torch.testing.assert_close(sample.images.mean((1, 2, 3)), torch.zeros(30), atol=1e-5, rtol=0)
    torch.testing.assert_close(sample.images.var((1, 2, 3), correction=0), torch.ones(30))
    assert torch.equal(sample.masks, (sample.labels > 0).long())
    assert 0.2 < sample.masks.float().mean() < 0.45


def test_cells_are_connected_numbered_and_apart(sample):
    for label in sample.labels.numpy():
        parts, number = ndimage.label(label > 0, np.ones((3, 3)))  # corners touch: still one cell a part
        assert number == label.max() >= 3
        for k in range(1, number + 1):
            assert len(np.unique(label[parts == k])) == 1
            assert (label == k).sum() >= 12


def test_some_cells_are_one_pixel_apart(sample):
    gaps = sum((ndimage.binary_closing(m, np.ones((3, 3))) & ~m).sum() for m in sample.masks.numpy().astype(bool))
    assert gaps > 100


def test_interiors_are_bright_and_membranes_dark(sample):
    x, masks = sample.images[:, 0], sample.masks.numpy()
    layers = [torch.tensor(np.stack([ndimage.binary_erosion(m, iterations=k) for m in masks])) for k in (1, 2)]
    membrane, interior = sample.masks.bool() & ~layers[0], layers[1]
    background = x[sample.masks == 0].mean()
    assert x[interior].mean() > background + 0.3
    assert x[membrane].mean() < background - 0.3


def test_seeds_and_counts():
    few, more, other = cells(2, 3, 32), cells(4, 3, 32), cells(2, 4, 32)
    assert torch.equal(few.images, more.images[:2])
    assert torch.equal(few.labels, more.labels[:2])
    assert not torch.equal(few.images, other.images)


def test_weights_are_the_formula():
    labels = torch.zeros(1, 9, 12, dtype=torch.long)
    labels[0, 2:5, 1:3], labels[0, 3:7, 6:9], labels[0, 8, 11] = 1, 2, 3
    w = border_weights(labels, w0=7.0, sigma=2.0)[0]
    share = (labels > 0).double().mean().item()
    points = [(labels[0] == k).nonzero().double() for k in (1, 2, 3)]
    for i in range(9):
        for j in range(12):
            d = sorted((p - torch.tensor([i, j])).square().sum(1).sqrt().min().item() for p in points)
            if labels[0, i, j] > 0:
                expected = 0.5 / share
            else:
                expected = 0.5 / (1 - share) + 7 * np.exp(-((d[0] + d[1]) ** 2) / 8)
            assert w[i, j].item() == pytest.approx(expected, rel=1e-5)


def test_classes_are_balanced_and_lonely_cells_have_no_border(sample):
    mask = sample.masks.bool()
    w = border_weights(sample.labels, w0=0.0)
    torch.testing.assert_close(w[mask].sum(), w[~mask].sum(), rtol=1e-4, atol=0)
    assert w.mean().item() == pytest.approx(1, rel=1e-4)
    labels = torch.zeros(1, 5, 5, dtype=torch.long)
    labels[0, 1, 1] = 4
    assert len(border_weights(labels).unique()) == 2
    assert border_weights(torch.zeros_like(labels)).isfinite().all()


def test_bad_input_is_refused():
    with refuses(ValueError, "count must be an integer of at least 1, got 0"):
        cells(0, 0)
    with refuses(ValueError, "size must be an integer of at least 16"):
        cells(1, 0, 8)
    with refuses(ValueError, "seed must be an integer of at least 0"):
        cells(1, -1)
    with refuses(ValueError, "w0 must be at least 0"):
        border_weights(torch.zeros(1, 4, 4, dtype=torch.long), w0=-1.0)
    with refuses(ValueError, "sigma must be positive"):
        border_weights(torch.zeros(1, 4, 4, dtype=torch.long), sigma=0.0)
