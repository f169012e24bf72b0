import numpy as np
import torch
from scipy import ndimage

from deepstat.datasets.volumes import annotate, volumes
from helpers import refuses


def test_shapes_values_and_one_organ():
    sample = volumes(6, 0)
    assert sample.images.shape == (6, 1, 32, 32, 32)
    assert repr(sample) == "Volumes(images: (6, 1, 32, 32, 32), labels: (6, 32, 32, 32))"
    torch.testing.assert_close(sample.images.mean((1, 2, 3, 4)), torch.zeros(6), atol=1e-5, rtol=0)
    torch.testing.assert_close(sample.images.var((1, 2, 3, 4), correction=0), torch.ones(6))
    for image, label in zip(sample.images[:, 0].numpy(), sample.labels.numpy(), strict=True):
        assert set(np.unique(label)) == {0, 1}
        assert ndimage.label(label)[1] == 1
        assert 0.01 < label.mean() < 0.2
        assert image[label == 1].mean() > image[label == 0].mean() + 0.5


def test_there_is_something_bright_that_is_not_the_organ():
    sample = volumes(6, 0)
    for image, label in zip(sample.images[:, 0].numpy(), sample.labels.numpy(), strict=True):
        smooth = ndimage.gaussian_filter(image, 1)
        away = ~ndimage.binary_dilation(label, iterations=2)
        assert (smooth[away] > smooth[label == 1].mean()).sum() >= 5


def test_seeds_and_counts():
    few, more, other = volumes(1, 3, 16), volumes(2, 3, 16), volumes(1, 4, 16)
    assert torch.equal(few.images, more.images[:1])
    assert torch.equal(few.labels, more.labels[:1])
    assert not torch.equal(few.images, other.images)


def test_annotation_keeps_the_slices_and_nothing_else(device):
    labels = torch.randint(2, (2, 4, 5, 6), device=device)
    sparse = annotate(labels, ((1,), (), (0, 5)))
    known = torch.zeros(4, 5, 6, dtype=torch.bool, device=device)
    known[1], known[:, :, 0], known[:, :, 5] = True, True, True
    assert torch.equal(sparse[:, known], labels[:, known])
    assert (sparse[:, ~known] == -1).all()
    assert (annotate(labels, ((), (), ())) == -1).all()


def test_bad_input_is_refused():
    with refuses(ValueError, "count must be an integer of at least 1"):
        volumes(0, 0)
    with refuses(ValueError, "size must be an integer of at least 16"):
        volumes(1, 0, 8)
    labels = torch.zeros(1, 4, 4, 4, dtype=torch.long)
    with refuses(ValueError, "slices must be three sequences"):
        annotate(labels, ((0,), (1,)))
    with refuses(ValueError, "slices must be from 0 to 3 along axis 1, got 4"):
        annotate(labels, ((), (4,), ()))
