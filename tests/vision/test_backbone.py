import jaxtyping
import pytest
import torch
from torch.nn import functional

from deepstat.seeding import seed_everything
from deepstat.vision.backbone import Backbone
from helpers import refuses


@pytest.fixture
def backbone():
    seed_everything(0)
    return Backbone()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("height", "width"), [(64, 64), (8, 24), (128, 96)])
def test_one_cell_for_8_by_8_pixels(backbone, height, width, dtype, device):
    images = torch.rand(2, 1, height, width, dtype=dtype, device=device)
    found = backbone.to(device, dtype)(images)
    assert found.shape == (2, backbone.channels, height // backbone.stride, width // backbone.stride)
    assert found.dtype == dtype
    assert (found >= 0).all()


def test_five_convolutions_of_26k_weights(backbone):
    convolutions = [m for m in backbone.modules() if isinstance(m, torch.nn.Conv2d)]
    assert len(convolutions) == 5
    assert sum(c.weight.numel() for c in convolutions) == 16 * 8 + 9 * 8 * 16 + 16 * 16 * 16 + 9 * 16 * 32 + 16 * 32 * 64
    assert Backbone(inputs=3, widths=(2, 3, 4, 5, 6))(torch.rand(1, 3, 16, 16)).shape == (1, 6, 2, 2)


def test_a_cell_sees_an_area_centred_on_its_own_pixels(backbone):
    images = torch.rand(1, 1, 128, 128, requires_grad=True)
    backbone.eval()(images)[0, :, 8, 8].sum().backward()
    rows = images.grad[0, 0].abs().sum(1).nonzero().squeeze(1)
    assert rows.min() + rows.max() == 64 + 71  # the centre of pixels 64 to 71
    assert rows.max() - rows.min() + 1 == 34  # 4, then + 2 * 2, + 3 * 2, + 2 * 4, + 3 * 4


def test_moving_the_image_by_a_cell_moves_the_map_by_a_cell(backbone):
    images = functional.pad(torch.rand(1, 1, 48, 48), (40, 40, 40, 40))
    found = backbone.eval()(images)
    moved = backbone(images.roll((8, -16), dims=(2, 3)))
    torch.testing.assert_close(moved[..., 2:-2, 2:-2], found.roll((1, -2), dims=(2, 3))[..., 2:-2, 2:-2])


def test_every_parameter_learns_and_the_network_compiles(backbone, monkeypatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # the checks cannot be traced
    torch.compiler.reset()
    images = torch.rand(4, 1, 16, 16)
    compiled = torch.compile(backbone, backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(images), backbone(images))
    backbone(images).square().mean().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in backbone.parameters())


def test_refusals(backbone):
    with refuses(ValueError, "multiples of 8, such as 72 x 64, got 66 x 64"):
        backbone(torch.rand(1, 1, 66, 64))
    with refuses(ValueError, "such as 8 x 8, got 0 x 8"):
        backbone(torch.rand(1, 1, 0, 8))
    with refuses(ValueError, "shape \\(batch, 1, height, width\\), got \\(1, 3, 64, 64\\)"):
        backbone(torch.rand(1, 3, 64, 64))
    with refuses(ValueError, "five positive numbers"):
        Backbone(widths=(8, 16))
