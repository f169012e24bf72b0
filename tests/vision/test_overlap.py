import math

import numpy as np
import pytest
import torch
from scipy import ndimage
from skimage.metrics import hausdorff_distance
from sklearn.metrics import f1_score, jaccard_score

from deepstat.foundations import losses
from deepstat.vision import overlap
from helpers import refuses


def blobs(seed, size=24, dimensions=2):
    """Two random sets that overlap."""
    rng = np.random.default_rng(seed)
    smooth = ndimage.gaussian_filter(rng.standard_normal((2,) + (size,) * dimensions), (0,) + (2,) * dimensions)
    smooth[1] = 0.7 * smooth[0] + 0.3 * smooth[1]
    return (torch.tensor(s > 0.05) for s in smooth)


@pytest.mark.parametrize("seed", range(4))
def test_overlap_is_scikit_learns(seed, device):
    a, b = (mask.to(device) for mask in blobs(seed))
    flat = b.flatten().cpu().numpy(), a.flatten().cpu().numpy()
    assert overlap.dice(a, b) == pytest.approx(f1_score(*flat), rel=1e-6)
    assert overlap.jaccard(a, b) == pytest.approx(jaccard_score(*flat), rel=1e-6)
    d, j = overlap.dice(a, b), overlap.jaccard(a, b)
    assert d == pytest.approx(2 * j / (1 + j), rel=1e-6)
    assert 1 - d == pytest.approx(losses.dice(a[None].float(), b[None].long(), smooth=0.0).item(), abs=1e-6)


def test_empty_and_disjoint_sets():
    none, one, other = torch.zeros(3, 3, 3, dtype=torch.bool)
    one[0, 0] = other[2, 2] = True
    for function in (overlap.dice, overlap.jaccard):
        assert function(none, none) == 1
        assert function(one, none) == function(one, other) == 0
        assert function(one, one) == 1


def test_the_boundary_by_hand_and_by_erosion():
    square = torch.zeros(6, 7, dtype=torch.bool)
    square[1:5, 1:6] = True
    expected = square.clone()
    expected[2:4, 2:5] = False
    assert torch.equal(overlap.boundary(square), expected)
    full = torch.ones(3, 4, 5, dtype=torch.bool)
    assert overlap.boundary(full).sum() == 60 - 1 * 2 * 3
    for seed in range(3):
        mask, _ = blobs(seed, 12, 3)
        eroded = ndimage.binary_erosion(mask.numpy())
        assert np.array_equal(overlap.boundary(mask).numpy(), mask.numpy() & ~eroded)


@pytest.mark.parametrize(("dimensions", "spacing"), [(2, None), (2, (0.5, 2.0)), (3, (1.0, 1.0, 3.0))])
def test_distances_are_those_of_a_distance_transform(dimensions, spacing, device):
    a, b = (mask.to(device) for mask in blobs(1, 12, dimensions))
    edges = [overlap.boundary(mask).cpu().numpy() for mask in (a, b)]
    forms = [ndimage.distance_transform_edt(~edge, sampling=spacing) for edge in edges]
    to_b, to_a = forms[1][edges[0]], forms[0][edges[1]]
    ours = overlap.boundary_distances(a, b, spacing)
    np.testing.assert_allclose(ours[0].cpu(), to_b)
    np.testing.assert_allclose(ours[1].cpu(), to_a)
    both = np.concatenate([to_b, to_a])
    assert overlap.average_surface_distance(a, b, spacing) == pytest.approx(both.mean())
    assert overlap.hausdorff(a, b, spacing) == pytest.approx(both.max())
    expected = max(np.quantile(to_b, 0.95), np.quantile(to_a, 0.95))
    assert overlap.hausdorff(a, b, spacing, 0.95) == pytest.approx(expected)
    if spacing is None:
        assert overlap.hausdorff(a, b) == pytest.approx(hausdorff_distance(*edges))


def test_known_distances():
    a, b = torch.zeros(2, 9, 9, dtype=torch.bool)
    a[2, 1] = True
    b[5, 5] = True
    assert overlap.hausdorff(a, b) == overlap.average_surface_distance(a, b) == 5
    assert overlap.hausdorff(a, b, (2.0, 1.0)) == pytest.approx(math.sqrt(52))
    assert overlap.hausdorff(a, a) == 0
    b[2, 1] = True  # now a is part of b: one direction sees nothing
    assert [d.max().item() for d in overlap.boundary_distances(a, b)] == [0, 5]
    assert overlap.average_surface_distance(a, b) == pytest.approx(5 / 3)


def test_cells_found():
    truth = torch.zeros(6, 8, dtype=torch.long)
    truth[:2, :3], truth[4:, :4], truth[:3, 6:] = 1, 2, 5
    assert overlap.instance_f1(truth, truth) == 1
    found = torch.zeros_like(truth)
    found[:2, :2] = 7  # 4 of 6: found
    found[3:, :4] = 3  # 8 of 12: found
    found[:3, 5:7] = 4  # 3 of 9: not found
    assert overlap.instance_f1(found, truth) == pytest.approx(2 * 2 / 6)
    assert overlap.instance_f1(found, truth, 0.7) == 0
    half = torch.zeros_like(truth)
    half[:2, :3] = torch.tensor([1, 2, 2])  # a third and two thirds
    assert overlap.instance_f1(half, truth) == pytest.approx(2 * 1 / 5)
    nothing = torch.zeros_like(truth)
    assert overlap.instance_f1(nothing, nothing) == 1
    assert overlap.instance_f1(nothing, truth) == 0


def test_exactly_half_is_no_match():
    truth, found = torch.zeros(2, 1, 4, dtype=torch.long)
    truth[0, :2], found[0, :1] = 1, 1
    assert overlap.instance_f1(found, truth) == 0


def test_components_touch_along_rows_and_columns_only():
    mask = torch.tensor([[1, 0, 0], [0, 1, 1], [0, 0, 1]], dtype=torch.bool)
    assert overlap.components(mask).tolist() == [[1, 0, 0], [0, 2, 2], [0, 0, 2]]
    assert overlap.components(mask, 3).tolist() == [[0, 0, 0], [0, 1, 1], [0, 0, 1]]
    assert not overlap.components(mask, 4).any()
    assert not overlap.components(torch.zeros(2, 2, dtype=torch.bool)).any()


def test_bad_input_is_refused():
    a, b = torch.ones(2, 3, 3, dtype=torch.bool)
    with refuses(ValueError, r"same shape, got \(3, 3\) and \(3, 2\)"):
        overlap.dice(a, b[:, :2])
    with refuses(ValueError, "must not be empty"):
        overlap.hausdorff(a, ~b)
    with refuses(ValueError, "spacing must be 2 positive numbers"):
        overlap.hausdorff(a, b, (1.0, 0.0))
    with refuses(ValueError, "spacing must be 2 positive numbers"):
        overlap.average_surface_distance(a, b, (1.0,))
    with refuses(ValueError, r"quantile must be in \[0, 1\], got 95"):
        overlap.hausdorff(a, b, quantile=95)
    with refuses(ValueError, "threshold must be from 0.5"):
        overlap.instance_f1(a.long(), b.long(), 0.4)
    with refuses(ValueError, "least must be at least 1"):
        overlap.components(a, 0)
