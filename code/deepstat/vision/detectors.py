"""The recipe of each of the six detectors of this book, and their trained weights.

``make detectors``, or ``python -m deepstat.vision.detectors NAME...``, trains them on a CPU and writes ``weights/*.pt`` and
their scores beside, in ``weights/detectors.json``.

Chapter: vision/single_shot_detection.
"""

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor, nn

from deepstat.datasets.scenes import Scenes, digit_scenes
from deepstat.seeding import isolated, seed_everything
from deepstat.vision import fast_rcnn, faster_rcnn, rcnn, ssd, yolo
from deepstat.vision.average_precision import Detections, mean_average_precision
from deepstat.vision.backbone import Backbone
from deepstat.vision.proposals import connected_components
from deepstat.vision.sppnet import SPPNet

WEIGHTS = Path(__file__).parent / "weights"
CLASSES = 10
TRAINING, HELD_OUT = 4000, 300  # scenes


class LinearStages(nn.Module):
    """A region classifier with R-CNN's last stages as buffers, so that one state dict holds the whole detector.

    Args:
        network: R-CNN's or SPPNet's.
    """

    def __init__(self, network: rcnn.RegionClassifier):
        super().__init__()
        self.network = network
        length, width = network.hidden.in_features, network.hidden.out_features
        self.register_buffer("svm_weight", torch.zeros(CLASSES, width))
        self.register_buffer("svm_bias", torch.zeros(CLASSES))
        self.register_buffer("ridge_weight", torch.zeros(CLASSES, 4, length))
        self.register_buffer("ridge_bias", torch.zeros(CLASSES, 4))

    @torch.no_grad()
    def fit(self, scenes: Scenes, proposals: rcnn.Boxes) -> None:
        """The support vector machines and the ridge regressions on the network's features as they are."""
        regions = [torch.cat([p, truth]) for p, truth in zip(proposals, scenes.boxes, strict=True)]
        heads = rcnn.fit_heads(rcnn.describe_all(self.network, scenes.images, regions), scenes, proposals)
        self.svm_weight.copy_(torch.tensor(heads.svm.coef_[:CLASSES]))
        self.svm_bias.copy_(torch.tensor(heads.svm.intercept_[:CLASSES]))
        for k, ridge in enumerate(heads.ridge):
            self.ridge_weight[k] = torch.tensor(ridge.coef_)
            self.ridge_bias[k] = torch.tensor(ridge.intercept_)

    @torch.no_grad()
    def detect(self, images: Float[Tensor, "n c h w"]) -> list[Detections]:
        """Propose, describe, score and refine."""
        proposals = propose(images)
        described, hidden = rcnn.describe_all(self.network, images, proposals)
        scores = hidden @ self.svm_weight.cpu().T + self.svm_bias.cpu()
        codes = (described @ self.ridge_weight.cpu().flatten(0, 1).T).unflatten(1, (CLASSES, 4)) + self.ridge_bias.cpu()
        return rcnn.postprocess(scores, codes, proposals, *images.shape[2:], lowest=-1.0)


def propose(images: Float[Tensor, "n c h w"]) -> list[Tensor]:
    """Connected components of each image, on the CPU."""
    return [connected_components(image) for image in images.cpu()]


def _train_stages(model: LinearStages, scenes: Scenes, steps: int, seed: int) -> None:
    proposals = propose(scenes.images)
    rcnn.fine_tune(model.network, scenes, proposals, steps=steps, seed=seed)
    model.fit(scenes, proposals)


def _build_sppnet() -> LinearStages:
    """SPPNet does not train its convolutions: they are R-CNN's, from its weights."""
    return LinearStages(SPPNet(load("rcnn").network.backbone, CLASSES))


@dataclass(frozen=True)
class Recipe:
    """How a detector is built, trained and used.

    Args:
        title: its name in print.
        proposals: where its regions come from.
        convolutions: what they are computed for.
        steps: of training.
        build: makes the untrained detector.
        train: ``train(model, scenes, steps, seed)``, in place.
        detect: ``detect(model, images)``, the detections of each image, proposals included.
    """

    title: str
    proposals: str
    convolutions: str
    steps: int
    build: Callable[[], nn.Module]
    train: Callable[[nn.Module, Scenes, int, int], object]
    detect: Callable[[nn.Module, Tensor], list[Detections]]


COMPONENTS, REGION, IMAGE = "connected components", "each proposal", "the image, once"
RECIPES = {
    "rcnn": Recipe(
        "R-CNN", COMPONENTS, REGION, 600, lambda: LinearStages(rcnn.RCNN(Backbone(), CLASSES)),
        _train_stages, lambda model, images: model.detect(images),
    ),
    "sppnet": Recipe(
        "SPPNet", COMPONENTS, IMAGE, 600, _build_sppnet,
        _train_stages, lambda model, images: model.detect(images),
    ),
    "fast_rcnn": Recipe(
        "Fast R-CNN", COMPONENTS, IMAGE, 1200, lambda: fast_rcnn.FastRCNN(Backbone(), CLASSES),
        lambda model, scenes, steps, seed: fast_rcnn.train(
            model, scenes, propose(scenes.images), steps=steps, seed=seed
        ),
        lambda model, images: fast_rcnn.detect(model, images, propose(images)),
    ),
    "faster_rcnn": Recipe(
        "Faster R-CNN", "a network on the map", IMAGE, 1200, lambda: faster_rcnn.FasterRCNN(Backbone(), CLASSES),
        lambda model, scenes, steps, seed: faster_rcnn.train(model, scenes, steps=steps, seed=seed),
        lambda model, images: faster_rcnn.detect(model, images),
    ),
    "yolo": Recipe(
        "YOLO", "none", IMAGE, 1800, lambda: yolo.YOLO(Backbone(), CLASSES),
        lambda model, scenes, steps, seed: yolo.train(model, scenes, steps=steps, seed=seed),
        lambda model, images: yolo.detect(model, images),
    ),
    "ssd": Recipe(
        "SSD", "none", IMAGE, 1800, lambda: ssd.SSD(Backbone(), CLASSES),
        lambda model, scenes, steps, seed: ssd.train(model, scenes, steps=steps, seed=seed),
        lambda model, images: ssd.detect(model, images),
    ),
}


def load(name: str) -> nn.Module:
    """A detector with its trained weights, on the CPU, in evaluation mode.

    Args:
        name: a key of :data:`RECIPES`.

    Returns:
        The detector, in float32; the file holds its floating point numbers in 16 bits.

    Raises:
        ValueError: if there is no such detector.
    """
    if name not in RECIPES:
        raise ValueError(f"name must be one of {', '.join(RECIPES)}, got {name!r}")
    with isolated():
        model = RECIPES[name].build()
    model.load_state_dict(torch.load(WEIGHTS / f"{name}.pt", weights_only=True))
    return model.eval()


def records() -> dict[str, dict]:
    """What is known of the weights: steps, seed, training scenes and mAP on validation and test scenes."""
    return json.loads((WEIGHTS / "detectors.json").read_text())


def score(name: str, model: nn.Module, scenes: Scenes) -> float:
    """Mean average precision at an IoU of 0.5, all points."""
    return mean_average_precision(RECIPES[name].detect(model, scenes.images), scenes.truths, CLASSES)


def measure(name: str, model: nn.Module) -> dict[str, float]:
    """:func:`score` on held-out scenes: those of the validation digits, for choices, and those of the test digits."""
    held_out = {split: digit_scenes(HELD_OUT, split) for split in ("validation", "test")}
    return {f"{split} mAP": round(score(name, model, scenes), 4) for split, scenes in held_out.items()}


def make(name: str, seed: int = 0, scenes: int = TRAINING, steps: int | None = None, folder: Path = WEIGHTS) -> dict:
    """Train a detector by its recipe, write its weights, and measure them as they are read back.

    Args:
        name: a key of :data:`RECIPES`.
        seed: of the initial parameters and the shuffling.
        scenes: how many to train on.
        steps: the recipe's, if not given.
        folder: where to write.

    Returns:
        The record that :func:`records` gives.
    """
    recipe = RECIPES[name]
    steps = recipe.steps if steps is None else steps
    seed_everything(seed)
    model = recipe.build()
    recipe.train(model, digit_scenes(scenes, "train"), steps, seed)
    small = {k: v.half() if v.is_floating_point() else v for k, v in model.state_dict().items()}
    torch.save(small, folder / f"{name}.pt")
    model.load_state_dict(small)
    record = {"steps": steps, "seed": seed, "scenes": scenes} | measure(name, model)
    file = folder / "detectors.json"
    known = json.loads(file.read_text()) if file.exists() else {}
    known[name] = record
    file.write_text(json.dumps({k: known[k] for k in RECIPES if k in known}, indent=1) + "\n")
    return record


if __name__ == "__main__":
    torch.set_num_threads(1)
    for chosen in sys.argv[1:] or RECIPES:
        print(chosen, make(chosen), flush=True)
