import math

import jaxtyping
import pytest
import torch
from torch.nn import functional

from deepstat.vision import roi_pooling
from helpers import refuses


def some(generator, dtype=torch.float64, count=12):
    """Maps and regions, some of which reach beyond the map."""
    features = torch.randn(3, 2, 7, 9, generator=generator, dtype=dtype)
    corner = 70 * torch.rand(count, 2, generator=generator) - 8
    rois = torch.cat([corner, corner + 1 + 50 * torch.rand(count, 2, generator=generator)], dim=1)
    return features, rois, torch.randint(3, (count,), generator=generator)


@pytest.mark.parametrize("size", [1, 2, 3, 7])
def test_roi_pooling_is_adaptive_pooling_of_the_cut_out_cells(size, generator):
    features, rois, image = some(generator)
    found = roi_pooling.roi_pool(features, rois, image, size, 8)
    for roi, k, result in zip((rois / 8).tolist(), image, found, strict=True):
        x1, y1, x2, y2 = (round(v) for v in roi)  # half to even, as PyTorch
        x1, y1 = min(max(x1, 0), 8), min(max(y1, 0), 6)
        cut = features[k, :, y1 : max(min(y2, 7), y1 + 1), x1 : max(min(x2, 9), x1 + 1)]
        torch.testing.assert_close(result, functional.adaptive_max_pool2d(cut, size))


@pytest.mark.parametrize("samples", [1, 2, 3])
@pytest.mark.parametrize("size", [1, 2, 7])
def test_roi_align_is_grid_sample(size, samples, generator):
    features, rois, image = some(generator)
    found = roi_pooling.roi_align(features, rois.double(), image, size, 8, samples)
    step = (torch.arange(size * samples, dtype=torch.float64) + 0.5) / (size * samples)
    for roi, k, result in zip(rois.double() / 8, image, found, strict=True):
        x = (roi[0] + (roi[2] - roi[0]) * step) / 9 * 2 - 1  # cell j covers [j, j + 1]: align_corners=False
        y = (roi[1] + (roi[3] - roi[1]) * step) / 7 * 2 - 1
        points = torch.stack(torch.meshgrid(x, y, indexing="xy"), dim=-1)[None]
        sampled = functional.grid_sample(features[k][None], points, padding_mode="border", align_corners=False)
        torch.testing.assert_close(result, functional.avg_pool2d(sampled, samples)[0], rtol=1e-10, atol=1e-12)


def test_roi_align_of_a_linear_map_is_its_value_at_the_centres():
    y, x = torch.meshgrid(torch.arange(8) + 0.5, torch.arange(8) + 0.5, indexing="ij")
    features = (2 * x - 3 * y)[None, None]
    found = roi_pooling.roi_align(features, torch.tensor([[1.0, 2, 4, 6]]), torch.tensor([0]), 2)
    expected = torch.tensor([[2 * 1.75 - 9, 2 * 3.25 - 9], [2 * 1.75 - 15, 2 * 3.25 - 15]])
    torch.testing.assert_close(found[0, 0], expected)


def test_moving_a_box_by_less_than_a_cell_changes_align_but_not_pooling(generator):
    features = torch.randn(1, 1, 8, 8, generator=generator)
    rois = torch.tensor([[16.0, 16, 40, 40], [19, 19, 43, 43]])
    image = torch.tensor([0, 0])
    pooled = roi_pooling.roi_pool(features, rois, image, 3, 8)
    assert (pooled[0] == pooled[1]).all()
    aligned = roi_pooling.roi_align(features, rois, image, 3, 8)
    assert (aligned[0] - aligned[1]).abs().max() > 0.1


@pytest.mark.slow
def test_gradients(generator):
    features, rois, image = some(generator, count=3)
    features.requires_grad_()
    assert torch.autograd.gradcheck(lambda f: roi_pooling.roi_pool(f, rois, image, 2, 8), features)
    inside = torch.tensor([[9.3, 8.1, 40.2, 33.7]], dtype=torch.float64, requires_grad=True)
    one = torch.tensor([0])
    assert torch.autograd.gradcheck(lambda f, b: roi_pooling.roi_align(f, b, one, 2, 8), (features, inside))


def test_each_bin_sends_its_gradient_to_one_cell():
    features = torch.zeros(1, 1, 4, 4, requires_grad=True)  # all tied
    roi_pooling.roi_pool(features, torch.tensor([[0.0, 0, 4, 4]]), torch.tensor([0]), 2).sum().backward()
    assert features.grad.sum() == 4
    assert features.grad.max() == 1


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_small_dtypes_devices_and_compilation(dtype, device, generator, monkeypatch):
    features, rois, image = some(generator, torch.float32)
    exact = [f(features, rois, image, 3, 8) for f in (roi_pooling.roi_pool, roi_pooling.roi_align)]
    features, rois, image = features.to(device, dtype), rois.to(device), image.to(device)
    for function, expected in zip((roi_pooling.roi_pool, roi_pooling.roi_align), exact, strict=True):
        found = function(features, rois, image, 3, 8)
        assert found.dtype == dtype
        tolerance = 1e-5 if dtype == torch.float32 else 0.05
        torch.testing.assert_close(found.float().cpu(), expected, rtol=0, atol=tolerance)
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # the checks cannot be traced
    torch.compiler.reset()
    compiled = torch.compile(lambda f, r, i: roi_pooling.roi_align(f, r, i, 3, 8), backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(features, rois, image), found)


def test_warping_a_whole_image_to_its_own_size_changes_nothing(generator):
    images = torch.rand(2, 1, 16, 16, generator=generator)
    whole = torch.tensor([[0.0, 0, 16, 16]]).expand(2, 4)
    torch.testing.assert_close(roi_pooling.warp(images, whole, torch.arange(2), 16), images)


def test_warping_is_resizing_of_the_cut_out_box(generator):
    images = torch.rand(1, 2, 20, 20, generator=generator)
    found = roi_pooling.warp(images, torch.tensor([[0.0, 0, 20, 20]]), torch.tensor([0]), 30)
    expected = functional.interpolate(images, 30, mode="bilinear", align_corners=False)
    torch.testing.assert_close(found, expected)


def test_context_is_what_lies_around_the_box(generator):
    images = torch.rand(1, 1, 32, 32, generator=generator)
    box, image = torch.tensor([[8.0, 10, 16, 18]]), torch.tensor([0])
    found = roi_pooling.warp(images, box, image, 12, context=2)
    torch.testing.assert_close(found[0], images[0, :, 8:20, 6:18])  # 8 pixels become 8, with 2 around them


def test_an_empty_set_of_regions():
    features = torch.zeros(1, 2, 4, 4)
    for function in (roi_pooling.roi_pool, roi_pooling.roi_align, roi_pooling.warp):
        assert function(features, torch.zeros(0, 4), torch.zeros(0, dtype=torch.long), 3).shape == (0, 2, 3, 3)


def test_what_is_refused():
    good = {"features": torch.zeros(1, 2, 4, 4), "rois": torch.zeros(3, 4), "image": torch.zeros(3).long(), "size": 2}
    bad = {"features": torch.zeros(1, 2, 0, 4), "rois": torch.zeros(3, 5), "image": torch.zeros(2).long(), "size": 0}
    for function in (roi_pooling.roi_pool, roi_pooling.roi_align):
        for name, value in [*bad.items(), ("stride", 0.0), ("stride", math.nan)]:
            with refuses(ValueError, name):
                function(**{**good, name: value})
    with refuses(ValueError, "samples"):
        roi_pooling.roi_align(**good, samples=0)
    good["images"] = good.pop("features")
    for context in (-1, 1):
        with refuses(ValueError, "context"):
            roi_pooling.warp(**good, context=context)
