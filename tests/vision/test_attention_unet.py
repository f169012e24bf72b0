import jaxtyping
import pytest
import torch
from torch.nn import functional

from deepstat.vision.attention_unet import AttentionGate, AttentionUNet
from deepstat.vision.unet import UNet
from helpers import refuses
from vision.networks import fitted, gradients_reach_every_parameter


def test_the_gate_is_its_formula(device):
    torch.manual_seed(0)
    gate = AttentionGate(3, 6, 4).to(device, torch.float64)
    x = torch.randn(2, 3, 4, 6, dtype=torch.float64, device=device)
    g = torch.randn(2, 6, 2, 3, dtype=torch.float64, device=device)
    coarse = torch.zeros(2, 1, 2, 3, dtype=torch.float64, device=device)
    for n in range(2):
        for i in range(2):
            for j in range(3):
                window = x[n, :, 2 * i : 2 * i + 2, 2 * j : 2 * j + 2]
                hidden = (gate.of_skip.weight * window).sum((1, 2, 3))
                hidden = hidden + gate.of_gate.weight[:, :, 0, 0] @ g[n, :, i, j] + gate.of_gate.bias
                score = gate.score.weight[0, :, 0, 0] @ hidden.clamp(min=0) + gate.score.bias[0]
                coarse[n, 0, i, j] = 1 / (1 + (-score).exp())
    alpha = functional.interpolate(coarse, size=(4, 6), mode="bilinear", align_corners=False)
    torch.testing.assert_close(gate.weights(x, g), alpha)
    torch.testing.assert_close(gate(x, g), alpha * x)
    assert 0 < gate.weights(x, g).min() < gate.weights(x, g).max() < 1


def test_open_gates_give_the_u_net():
    torch.manual_seed(0)
    model = AttentionUNet(width=2, depth=3)
    plain = UNet(width=2, depth=3, padded=True)
    plain.load_state_dict({k: v for k, v in model.state_dict().items() if not k.startswith("gates")})
    for gate in model.gates:
        torch.nn.init.zeros_(gate.score.weight)
        torch.nn.init.constant_(gate.score.bias, 100.0)
    x = torch.randn(1, 1, 16, 16)
    torch.testing.assert_close(model(x), plain(x))
    assert len(model.gates) == 2  # the skip of the full resolution has none


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_every_parameter_gets_a_gradient(dtype, device):
    torch.manual_seed(0)
    model = AttentionUNet(2, 3, width=4, depth=2).to(device, dtype)
    out = model(torch.randn(2, 2, 16, 16, device=device, dtype=dtype))
    assert out.shape == (2, 3, 16, 16)
    assert out.dtype == dtype
    gradients_reach_every_parameter(model, out.float().square().sum())


@pytest.mark.slow
def test_it_overfits_one_batch():
    torch.manual_seed(0)
    model = AttentionUNet(width=8, depth=2)
    x = torch.randn(2, 1, 16, 16)
    y = (functional.avg_pool2d(x, 5, 1, 2)[:, 0] > 0).long()
    assert fitted(model, x, y)[-1] < 0.05


def test_it_compiles(monkeypatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # the run-time checks cannot be traced
    torch.manual_seed(0)
    model = AttentionUNet(width=2, depth=2)
    x = torch.randn(1, 1, 16, 16)
    torch.testing.assert_close(torch.compile(model, backend="eager", fullgraph=True)(x), model(x))


def test_bad_input_is_refused():
    with refuses(ValueError, "hidden must be at least 1, got 0"):
        AttentionGate(1, 1, 0)
    with refuses(ValueError, r"skip must be twice as high and wide as gate, \(2, 2\), got \(5, 4\)"):
        AttentionGate(1, 1, 1)(torch.zeros(1, 1, 5, 4), torch.zeros(1, 1, 2, 2))
    with refuses(ValueError, "height must fit 3 down-samplings, such as 16, got 18"):
        AttentionUNet(width=1, depth=3)(torch.zeros(1, 1, 18, 16))
