import pytest
import torch
from torch.nn import functional

from deepstat.vision.tiling import tiled
from deepstat.vision.unet import UNet
from helpers import refuses


@pytest.mark.parametrize(("depth", "tile", "height", "width"), [(1, 24, 30, 17), (2, 60, 23, 77), (3, 124, 60, 46)])
def test_tiles_give_what_one_pass_gives(depth, tile, height, width, device):
    torch.manual_seed(0)
    model = UNet(2, 3, width=2, depth=depth).to(device).double()
    image = torch.randn(1, 2, height, width, dtype=torch.float64, device=device)
    margin = model.margin
    large = functional.pad(image, [margin] * 4, mode="reflect")
    more = [(-(size + 2 * margin - tile)) % model.stride for size in (height, width)]  # up to a size that fits
    whole = model(functional.pad(large, [0, more[1], 0, more[0]]))[:, :, :height, :width]
    result = tiled(model, image, tile)
    assert result.shape == (1, 3, height, width)
    torch.testing.assert_close(result, whole, rtol=0, atol=1e-10)


def test_bad_input_is_refused():
    model, image = UNet(width=1, depth=2), torch.zeros(1, 1, 64, 64)
    with refuses(ValueError, "model must be unpadded"):
        tiled(UNet(width=1, depth=2, padded=True), image, 64)
    with refuses(ValueError, "higher and wider than the margin 20, got 20 x 64"):
        tiled(model, image[:, :, :20], 60)
    with refuses(ValueError, "tile must be a size that the model takes, such as 60, got 59"):
        tiled(model, image, 59)
