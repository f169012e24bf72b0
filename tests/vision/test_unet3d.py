import jaxtyping
import pytest
import torch
from torch import nn
from torch.nn import functional

from deepstat.vision.unet3d import UNet3d, sparse_cross_entropy
from helpers import refuses
from vision.networks import fitted, gradients_reach_every_parameter


def test_the_published_network_has_its_number_of_parameters():
    """The paper's 19,069,955 leaves out one number for each normalized channel."""
    with torch.device("meta"):
        model = UNet3d()
    scales = sum(m.weight.numel() for m in model.modules() if isinstance(m, nn.BatchNorm3d))
    assert sum(p.numel() for p in model.parameters()) == 19_072_291
    assert scales == 2_336
    assert sum(p.numel() for p in model.parameters()) - scales == 19_069_955


def test_its_maps_are_those_of_figure_2():
    with torch.device("meta"):
        model, x = UNet3d(), torch.zeros(1, 3, 116, 132, 132)
    convolved, seen = [], []
    for layer in model.modules():
        if isinstance(layer, nn.Conv3d):
            layer.register_forward_hook(lambda module, inputs, output: convolved.append(output.shape[1]))
        if isinstance(layer, nn.ConvTranspose3d):
            layer.register_forward_hook(lambda module, inputs, output: seen.append(output.shape[1:4]))
    assert model(x).shape == (1, 3, 28, 44, 44)
    assert convolved == [32, 64, 64, 128, 128, 256, 256, 512, 256, 256, 128, 128, 64, 64, 3]
    assert seen == [(512, 14, 18), (256, 20, 28), (128, 32, 48)]


@pytest.mark.slow
@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_every_parameter_gets_a_gradient(padded, dtype, device):
    torch.manual_seed(0)
    model = UNet3d(1, 2, width=1, padded=padded).to(device, dtype)
    size = 16 if padded else 92
    out = model(torch.randn(2, 1, size, size, size, device=device, dtype=dtype))
    assert out.shape == (2, 2) + (16 if padded else 4,) * 3
    assert out.dtype == dtype
    gradients_reach_every_parameter(model, functional.cross_entropy(out.float(), torch.zeros_like(out[:, 0]).long()))


@pytest.mark.slow
def test_it_overfits_one_batch():
    torch.manual_seed(0)
    model = UNet3d(1, 2, width=2, padded=True)
    x = torch.randn(2, 1, 8, 8, 8)
    y = (functional.avg_pool3d(x, 3, 1, 1)[:, 0] > 0).long()
    assert fitted(model, x, y, sparse_cross_entropy)[-1] < 0.1


def test_the_loss_is_pytorchs_weighted_cross_entropy(device):
    torch.manual_seed(0)
    logits = torch.randn(2, 3, 4, 5, 6, dtype=torch.float64, device=device)
    labels = torch.randint(-1, 3, (2, 4, 5, 6), device=device)
    weights = torch.tensor([1.0, 0.5, 3.0], dtype=torch.float64, device=device)
    for w in (None, weights):
        expected = functional.cross_entropy(logits, labels, w, ignore_index=-1)
        torch.testing.assert_close(sparse_cross_entropy(logits, labels, w), expected)


def test_unlabelled_voxels_get_no_gradient():
    logits = torch.randn(1, 2, 3, 3, 3, requires_grad=True)
    labels = torch.full((1, 3, 3, 3), -1)
    labels[0, 1] = 1
    sparse_cross_entropy(logits, labels).backward()
    assert logits.grad[:, :, [0, 2]].abs().max() == 0
    assert (logits.grad[:, :, 1].abs() > 0).all()


@pytest.mark.slow
def test_network_and_loss_compile(monkeypatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # the run-time checks cannot be traced
    torch.manual_seed(0)
    model = UNet3d(1, 2, width=1, padded=True).eval()
    x, y = torch.randn(1, 1, 8, 8, 8), torch.zeros(1, 8, 8, 8, dtype=torch.long)

    def run(x):
        return sparse_cross_entropy(model(x), y)

    torch.testing.assert_close(torch.compile(run, backend="eager", fullgraph=True)(x), run(x))


def test_bad_input_is_refused():
    with refuses(ValueError, "classes must be at least 1, got 0"):
        UNet3d(classes=0)
    model = UNet3d(1, 2, 1).to("meta")
    with refuses(ValueError, r"x must have shape \(batch, 1, depth, height, width\), got \(1, 92, 92, 92\)"):
        model(torch.zeros(1, 92, 92, 92, device="meta"))
    with refuses(ValueError, "height must fit 3 down-samplings, such as 100, got 97"):
        model(torch.zeros(1, 1, 92, 97, 92, device="meta"))
    logits = torch.zeros(1, 2, 2, 2, 2)
    with refuses(ValueError, r"labels must have shape \(1, 2, 2, 2\), got \(1, 2, 2\)"):
        sparse_cross_entropy(logits, torch.zeros(1, 2, 2, dtype=torch.long))
    with refuses(ValueError, r"weights must have shape \(2,\), got \(3,\)"):
        sparse_cross_entropy(logits, torch.zeros(1, 2, 2, 2, dtype=torch.long), torch.ones(3))
    with refuses(ValueError, "labelled voxel, got none"):
        sparse_cross_entropy(logits, torch.full((1, 2, 2, 2), -1))
    with refuses(ValueError, "y must be"):
        sparse_cross_entropy(logits, torch.full((1, 2, 2, 2), 2))
