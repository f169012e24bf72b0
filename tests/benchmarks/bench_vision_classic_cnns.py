"""A training step of the classic networks, beside an independent ResNet where one can be imported; asserts nothing.

Run: ``python tests/benchmarks/bench_vision_classic_cnns.py``
"""

import torch
from torch import nn

from deepstat import device, seeding
from deepstat.vision import cost, googlenet
from deepstat.vision.alexnet import OneTowerAlexNet
from deepstat.vision.densenet import DenseNet
from deepstat.vision.googlenet import GoogLeNet
from deepstat.vision.resnet import ResNet
from deepstat.vision.vgg import VGG

ROWS, STEPS = 4, 3
NETWORKS = {
    "ResNet-50": lambda: ResNet(50, stride_in=2),
    "ResNet-18": lambda: ResNet(18),
    "AlexNet, one tower": OneTowerAlexNet,
    "VGG-11": lambda: VGG(11),
    "GoogLeNet, variant": lambda: GoogLeNet(variant=True, auxiliary=False),
    "DenseNet-121": DenseNet,
}


def peer() -> nn.Module | None:
    """ResNet-50 of transformers with random weights; None where it is not installed."""
    try:
        from transformers import ResNetConfig, ResNetForImageClassification
    except ImportError:
        return None

    class Logits(nn.Module):
        def __init__(self):
            super().__init__()
            self.model = ResNetForImageClassification(ResNetConfig(num_labels=1000))

        def forward(self, x):
            return self.model(x).logits

    return Logits()


def main() -> None:
    torch.set_num_threads(1)
    seeding.seed_everything(0)
    where = device.pick()
    x, y = torch.randn(ROWS, 3, 224, 224, device=where), torch.arange(ROWS, device=where)

    def step(model: nn.Module) -> float:
        return cost.seconds_per_step(model.to(where), googlenet.loss, x, y, steps=STEPS)

    def operations(build) -> int:
        with torch.device("meta"):
            return cost.layer_table(build(), (1, 3, 224, 224))["multiply_adds"].sum()

    reference, most = step(NETWORKS["ResNet-50"]()), operations(NETWORKS["ResNet-50"])
    print(f"a training step of {ROWS} images on {where.type}: ResNet-50 takes {reference:.3f} s")
    for name, build in list(NETWORKS.items())[1:]:
        print(f"{name}: {step(build()) / reference:.2f} of its time, {operations(build) / most:.2f} of its multiply-adds")
    other = peer()
    if other is None:
        print("transformers is not installed: no independent ResNet-50 to compare with")
    else:
        print(f"ResNet-50, ours / transformers': {reference / step(other):.2f}")


if __name__ == "__main__":
    main()
