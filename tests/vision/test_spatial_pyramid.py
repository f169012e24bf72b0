import jaxtyping
import pytest
import torch
from torch import nn
from torch.nn import functional

from deepstat.vision.roi_pooling import roi_pool
from deepstat.vision.spatial_pyramid import SpatialPyramidPooling, spatial_pyramid
from helpers import refuses


@pytest.mark.parametrize("shape", [(1, 1), (3, 5), (13, 13)])
def test_the_layer_is_adaptive_max_pooling_of_any_map(shape, generator):
    x = torch.randn(2, 3, *shape, generator=generator)
    expected = torch.cat([functional.adaptive_max_pool2d(x, m).flatten(1) for m in (1, 2, 3, 6)], dim=1)
    found = SpatialPyramidPooling((1, 2, 3, 6))(x)
    assert found.shape == (2, 3 * 50)  # 50 bins, as in section 4.1 of He et al., 2014
    torch.testing.assert_close(found, expected, rtol=0, atol=0)


def test_one_level_is_roi_pooling(generator):
    features = torch.randn(2, 3, 8, 8, generator=generator)
    rois, image = torch.tensor([[3.0, 5, 40, 60], [0, 0, 64, 30]]), torch.tensor([1, 0])
    expected = roi_pool(features, rois, image, 4, 8).flatten(1)
    assert (spatial_pyramid(features, rois, image, (4,), 8) == expected).all()


def test_gradients_and_compilation(device, generator, monkeypatch):
    model = nn.Sequential(nn.Conv2d(1, 2, 3), SpatialPyramidPooling(), nn.Linear(42, 1)).to(device)
    x = torch.randn(2, 1, 12, 9, generator=generator).to(device)
    y = model(x)
    y.sum().backward()
    assert all(p.grad.abs().sum() > 0 for p in model.parameters())
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # the checks cannot be traced
    torch.compiler.reset()
    torch.testing.assert_close(torch.compile(model, backend="eager", fullgraph=True)(x), y)
    assert model.bfloat16()(x.bfloat16()).dtype == torch.bfloat16


def test_what_is_refused():
    for levels in ((), (0, 2)):
        with refuses(ValueError, "levels"):
            SpatialPyramidPooling(levels)
    with refuses(ValueError, "levels"):
        spatial_pyramid(torch.zeros(1, 1, 2, 2), torch.zeros(1, 4), torch.zeros(1).long(), ())
