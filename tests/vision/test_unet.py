import jaxtyping
import pytest
import torch
from torch.nn import functional

from deepstat.vision.unet import UNet, crop, map_sizes, nearest_size, output_size
from helpers import refuses
from vision.networks import fitted, gradients_reach_every_parameter

FIGURE_1 = [572, 570, 568, 284, 282, 280, 140, 138, 136, 68, 66, 64, 32, 30, 28, 56, 54, 52, 104, 102, 100,
            200, 198, 196, 392, 390, 388]  # fmt: skip


def test_the_published_network_has_its_number_of_parameters():
    with torch.device("meta"):
        model = UNet()
    assert sum(p.numel() for p in model.parameters()) == 31_030_658


def test_its_maps_have_the_sizes_of_figure_1():
    assert [572] + [size for _, size in map_sizes(572)] == FIGURE_1
    with torch.device("meta"):
        model, x = UNet(), torch.zeros(1, 1, 572, 572)
    seen = []
    for block in (*model.encoder, *model.decoder):
        block.register_forward_hook(lambda module, inputs, output: seen.append((output.shape[1], output.shape[2])))
    assert model(x).shape == (1, 2, 388, 388)
    assert seen == [(64, 568), (128, 280), (256, 136), (512, 64), (1024, 28), (512, 52), (256, 100), (128, 196), (64, 388)]


@pytest.mark.slow
def test_the_published_network_runs_at_full_size():
    model = UNet().eval()
    with torch.no_grad():
        assert model(torch.randn(1, 1, 572, 572)).isfinite().all()


@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("depth", [1, 2, 3])
def test_sizes_that_are_said_to_fit_do_and_others_are_refused(padded, depth):
    model = UNet(width=1, depth=depth, padded=padded).to("meta")
    fitting = 0
    for size in range(1, 40) if padded else range(11 * 2**depth - 20, 11 * 2**depth + 24):
        x = torch.zeros(1, 1, size, 96 if padded else nearest_size(96, depth), device="meta")
        expected = output_size(size, depth, padded)
        if expected is None:
            with refuses(ValueError, f"such as {nearest_size(size, depth, padded)}, got {size}"):
                model(x)
        else:
            fitting += 1
            assert model(x).shape[2] == expected == size - 2 * model.margin
    assert fitting > 2


@pytest.mark.parametrize("skips", [True, False])
@pytest.mark.parametrize("padded", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_every_parameter_gets_a_gradient(skips, padded, dtype, device):
    torch.manual_seed(0)
    model = UNet(3, 4, width=4, depth=2, padded=padded, skips=skips).to(device, dtype)
    x = torch.randn(2, 3, 60 if not padded else 32, 60 if not padded else 32, device=device, dtype=dtype)
    out = model(x)
    assert out.dtype == dtype
    gradients_reach_every_parameter(model, out.float().square().sum())


@pytest.mark.slow
@pytest.mark.parametrize("skips", [True, False])
def test_it_overfits_one_batch(skips):
    torch.manual_seed(0)
    model = UNet(width=8, depth=2, padded=True, skips=skips)
    x = torch.randn(2, 1, 16, 16)
    y = (functional.avg_pool2d(x, 5, 1, 2)[:, 0] > 0).long()
    assert fitted(model, x, y)[-1] < 0.05


def test_without_skips_the_decoder_sees_only_the_bottom():
    """With the bottom's maps set to zero, the output depends on the image through the skips alone."""
    torch.manual_seed(0)
    x = torch.randn(1, 1, 8, 8)
    other = x + 0.1 * torch.randn_like(x)
    for skips in (True, False):
        model = UNet(width=2, depth=3, padded=True, skips=skips)
        model.encoder[-1].register_forward_hook(lambda module, inputs, output: torch.zeros_like(output))
        assert torch.equal(model(x), model(other)) is not skips


def test_the_start_keeps_the_second_moment():
    torch.manual_seed(0)
    model = UNet(width=64, depth=1)
    for layer in (model.encoder[1][0], model.encoder[1][2]):
        fan_in = 9 * layer.in_channels
        assert layer.weight.var().item() * fan_in == pytest.approx(2, rel=0.05)
        assert not layer.bias.any()
    assert model.up[0].weight.var().item() * 128 == pytest.approx(2, rel=0.05)


def test_output_shifts_with_the_input_by_the_stride_and_by_nothing_less():
    torch.manual_seed(0)
    model = UNet(width=2, depth=2).double()
    x = torch.randn(1, 1, 76, 76, dtype=torch.float64)

    def gap(shift):
        return (model(x[..., shift : shift + 60, :60]) - model(x[..., :76, :60])[:, :, shift : shift + 20]).abs().max()

    assert model.stride == 4
    assert gap(4) < 1e-12
    assert gap(8) < 1e-12
    for shift in (1, 2, 3):
        assert gap(shift) > 1e-6


def test_cropping_takes_the_centre():
    maps = torch.arange(36.0).view(1, 1, 6, 6)
    assert torch.equal(crop(maps, torch.zeros(1, 1, 2, 4)), maps[:, :, 2:4, 1:5])


def test_it_compiles(monkeypatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # the run-time checks cannot be traced
    torch.manual_seed(0)
    model = UNet(width=2, depth=2, padded=True)
    x = torch.randn(1, 1, 16, 16)
    torch.testing.assert_close(torch.compile(model, backend="eager", fullgraph=True)(x), model(x))


def test_bad_input_is_refused():
    with refuses(ValueError, "width must be at least 1, got 0"):
        UNet(width=0)
    with refuses(ValueError, r"x must have shape \(batch, 1, height, width\), got \(1, 3, 572, 572\)"):
        UNet().to("meta")(torch.zeros(1, 3, 572, 572, device="meta"))
    with refuses(ValueError, "height must fit 4 down-samplings, such as 508, got 512"):
        UNet().to("meta")(torch.zeros(1, 1, 512, 572, device="meta"))
    with refuses(ValueError, "width must fit 4 down-samplings, such as 512, got 513"):
        UNet(padded=True).to("meta")(torch.zeros(1, 1, 512, 513, device="meta"))
