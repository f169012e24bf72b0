"""Scenes composed of real handwritten digits, each with a known box.

Chapters: vision/detection, vision/single_shot_detection.
"""

import random
from dataclasses import dataclass

import torch
from jaxtyping import Float32, Int64
from torch import Tensor
from torch.nn import functional

from deepstat.datasets import images, splits

SPLITS = ("train", "validation", "test")
LARGEST_OVERLAP = 0.1  # IoU of two boxes in one scene
_HEIGHTS = (12.0, 32.0)  # pixels that a digit of 8 rows is enlarged to
_FAINTEST = 0.5  # contrast of a digit is drawn between this and 1
_NOISE = 0.05  # standard deviation
_INK = 0.2  # a row or column of the 8 x 8 digit belongs to it if a pixel is above
_TRIES = 50


@dataclass(frozen=True, repr=False)
class Scenes:
    """Grey images with the box and the class of each object.

    Args:
        images: values in [0, 1], shape ``(n, 1, size, size)``.
        boxes: for each image ``x1, y1, x2, y2`` in pixels, shape ``(k, 4)`` with k of at least 1.
        labels: for each image the digits 0 to 9, shape ``(k,)``.
    """

    images: Float32[Tensor, "n 1 size size"]
    boxes: list[Float32[Tensor, "_ 4"]]
    labels: list[Int64[Tensor, " _"]]

    classes = 10

    @property
    def truths(self) -> list[tuple[Tensor, Tensor]]:
        """Boxes and labels of each image."""
        return list(zip(self.boxes, self.labels, strict=True))

    def __len__(self) -> int:
        return len(self.images)

    def __repr__(self) -> str:
        return f"Scenes(images: {tuple(self.images.shape)}, objects: {sum(len(b) for b in self.boxes)})"


def digit_scenes(count: int, split: str, seed: int = 0, size: int = 64, most: int = 4) -> Scenes:
    """Images of ``size`` × ``size`` pixels on which 1 to ``most`` digits lie at random.

    The digits are those of :func:`deepstat.datasets.images.digits`, 60 % for training, 20 % for validation and 20 % for
    testing, stratified by class and the same for every ``seed``; no digit is in two splits. The margin of a digit is
    cut off: its box is where it has ink. It is enlarged by a factor between 1.5 and 4 (12 to 32 pixels for the usual
    eight rows of ink), given a contrast between 0.5 and 1, and put at a random place whose box has an IoU of at most
    0.1 with each box before. Where digits meet, the brighter pixel wins. A digit for which 50 places were tried in
    vain is left out; the first always fits. Noise of standard deviation 0.05 is added and the result clipped to [0, 1].
    The number of digits, their classes (through the digit), sizes, contrasts and places are uniform.

    The scenes are composed because detection needs boxes without error; the handwriting is real.

    Args:
        count: number of scenes; more of them leave the first ones as they were.
        split: ``"train"``, ``"validation"`` or ``"test"``.
        seed: of the composition, at least 0.
        size: height and width in pixels, at least 32.
        most: the largest number of digits, at least 1.

    Returns:
        The scenes, on the CPU.

    Raises:
        ValueError: if an argument is out of range.
    """
    if split not in SPLITS:
        raise ValueError(f"split must be one of {', '.join(SPLITS)}, got {split!r}")
    for name, value, least in (("count", count, 1), ("seed", seed, 0), ("size", size, 32), ("most", most, 1)):
        if value < least:
            raise ValueError(f"{name} must be at least {least}, got {value}")
    digits, y = _inked(split)
    stream = len(SPLITS) * seed + SPLITS.index(split)
    draw, generator = random.Random(stream), torch.Generator().manual_seed(stream)
    canvases, boxes, labels = [], [], []
    for _ in range(count):
        canvas, placed, shown = torch.zeros(size, size), [], []
        for _ in range(draw.randint(1, most)):
            row = draw.randrange(len(digits))
            ink = _enlarge(digits[row], draw)
            place = _place(ink, placed, size, draw)
            if place is not None:
                x1, y1, x2, y2 = place
                torch.maximum(canvas[y1:y2, x1:x2], ink, out=canvas[y1:y2, x1:x2])
                placed.append(place)
                shown.append(row)
        canvases.append((canvas + _NOISE * torch.randn(size, size, generator=generator)).clamp(0, 1))
        boxes.append(torch.tensor(placed, dtype=torch.float32))
        labels.append(y[shown])
    return Scenes(torch.stack(canvases)[:, None], boxes, labels)


def digits_of(split: str) -> Int64[Tensor, " n"]:
    """The rows of :func:`deepstat.datasets.images.digits` that scenes of a split are made of."""
    y = images.digits().y
    rest, test = splits.train_test(len(y), 0.2, seed=0, stratify=y)
    train, validation = splits.train_test(len(rest), 0.25, seed=0, stratify=y[rest])
    return {"train": rest[train], "validation": rest[validation], "test": test}[split]


def _inked(split: str) -> tuple[list[Tensor], Tensor]:
    """The digits of a split, each without its empty margin, and their classes."""
    digits, rows = images.digits(), digits_of(split)
    cut = []
    for digit in digits.x[rows, 0]:
        dark = digit > _INK
        r, c = (dark.any(dim=k).nonzero().squeeze(1).tolist() for k in (1, 0))
        cut.append(digit[r[0] : r[-1] + 1, c[0] : c[-1] + 1])
    return cut, digits.y[rows]


def _enlarge(ink: Tensor, draw: random.Random) -> Tensor:
    """The digit at a random size and contrast."""
    factor = draw.uniform(*_HEIGHTS) / 8
    contrast = draw.uniform(_FAINTEST, 1)
    shape = [round(factor * side) for side in ink.shape]
    return contrast * functional.interpolate(ink[None, None], shape, mode="bilinear", align_corners=False)[0, 0]


def _place(ink: Tensor, placed: list[tuple], size: int, draw: random.Random) -> tuple | None:
    """A box for the digit, or None where none was found."""
    height, width = ink.shape
    for _ in range(_TRIES):
        x1 = draw.randint(0, size - width)
        y1 = draw.randint(0, size - height)
        box = (x1, y1, x1 + width, y1 + height)
        if all(_iou(box, other) <= LARGEST_OVERLAP for other in placed):
            return box
    return None


def _iou(a: tuple, b: tuple) -> float:
    """Of two boxes as plain numbers: much faster here than tensors."""
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    if width <= 0 or height <= 0:
        return 0.0
    both = width * height
    return both / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - both)
