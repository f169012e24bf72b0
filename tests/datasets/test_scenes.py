import dataclasses

import pytest
import torch

from deepstat.datasets import images, scenes
from deepstat.datasets.scenes import digit_scenes
from deepstat.vision.boxes import area, iou
from helpers import refuses


@pytest.fixture(scope="module")
def sample():
    return digit_scenes(400, "train")


def test_shapes_and_ranges(sample):
    assert sample.images.shape == (400, 1, 64, 64)
    assert (sample.images.min(), sample.images.max()) == (0, 1)
    assert len(sample) == len(sample.boxes) == len(sample.labels) == 400
    assert {len(b) for b in sample.boxes} == {1, 2, 3, 4}
    for boxes, labels in sample.truths:
        assert boxes.shape == (len(labels), 4)
        assert (boxes == boxes.round()).all()
    everything = torch.cat(sample.boxes)
    assert everything.min() >= 0
    assert everything.max() <= 64
    assert torch.cat(sample.labels).unique().tolist() == list(range(sample.classes))
    assert "400" in repr(sample)
    assert "tensor(" not in repr(sample)
    with pytest.raises(dataclasses.FrozenInstanceError):
        sample.images = None


def test_no_two_boxes_overlap_by_more_than_a_tenth(sample):
    largest = max(iou(b, b).fill_diagonal_(0).max().item() for b in sample.boxes)
    assert 0 < largest <= scenes.LARGEST_OVERLAP


def test_the_ink_fills_its_box_and_nothing_lies_outside(sample):
    outside, edges = [], []
    for image, boxes in zip(sample.images[:, 0], sample.boxes, strict=True):
        empty = torch.ones(64, 64, dtype=torch.bool)
        for x1, y1, x2, y2 in boxes.int().tolist():
            empty[y1:y2, x1:x2] = False
            inner = image[y1:y2, x1:x2]
            edges += [inner[0].max(), inner[-1].max(), inner[:, 0].max(), inner[:, -1].max()]
        outside.append(image[empty])
    outside = torch.cat(outside)
    assert outside.max() < 6.5 * 0.05  # noise only: 1.4 million normal numbers exceed 5.5 with probability 0.03
    assert outside.mean().item() == pytest.approx(0.05 * 0.3989, rel=0.01)  # of a normal, negative values cut off
    edges = torch.stack(edges)  # each side touches ink: at least .2 of the pixel value times the contrast, with noise
    assert (edges > 0.15).float().mean() > 0.95


def test_sizes_are_those_that_are_stated(sample):
    boxes = torch.cat(sample.boxes)
    heights = boxes[:, 3] - boxes[:, 1]
    assert heights.max() <= 32
    tall = heights[heights >= 12]
    assert len(tall) / len(heights) > 0.95  # most digits have ink in all eight rows
    assert tall.mean().item() == pytest.approx(22, abs=1)
    assert area(boxes).min() > 12 * 1.5 - 1


def test_digits_of_the_splits_are_disjoint_and_all_used():
    rows = {split: set(scenes.digits_of(split).tolist()) for split in scenes.SPLITS}
    assert set.union(*rows.values()) == set(range(1797))
    assert sum(len(r) for r in rows.values()) == 1797
    assert {split: round(len(r) / 1797, 2) for split, r in rows.items()} == {"train": 0.6, "validation": 0.2, "test": 0.2}
    y = images.digits().y
    for found in rows.values():
        assert (torch.bincount(y[list(found)]) >= 0.09 * len(found)).all()


@pytest.mark.slow
@pytest.mark.parametrize("split", scenes.SPLITS)
def test_a_scene_shows_digits_of_its_own_split(split):
    """Undo the enlargement of a lone digit and look it up: the nearest of all 1,797 is in the split."""
    digits, _ = scenes._inked(split)
    other = [d for s in scenes.SPLITS if s != split for d in scenes._inked(s)[0]]
    sample = digit_scenes(6, split, seed=3, most=1)
    for image, boxes in zip(sample.images, sample.boxes, strict=True):
        x1, y1, x2, y2 = boxes[0].int().tolist()
        ink = image[:, y1:y2, x1:x2]

        def distance(digit, ink=ink):
            enlarged = torch.nn.functional.interpolate(digit[None, None], ink.shape[1:], mode="bilinear")[0]
            contrast = (ink * enlarged).sum() / enlarged.square().sum()
            return (ink - contrast * enlarged).square().mean()

        assert min(map(distance, digits)) < min(map(distance, other))


@pytest.mark.slow
def test_seeds_splits_and_counts():
    first = digit_scenes(5, "test", seed=1)
    again = digit_scenes(8, "test", seed=1)
    assert torch.equal(first.images, again.images[:5])
    assert all(torch.equal(a, b) for a, b in zip(first.boxes, again.boxes, strict=False))
    drawn = [digit_scenes(1, split, seed).images for split in scenes.SPLITS for seed in range(4)]
    assert len({tuple(x.flatten().tolist()) for x in drawn}) == 12
    large = digit_scenes(3, "train", size=128, most=16)
    assert large.images.shape == (3, 1, 128, 128)
    assert max(len(b) for b in large.boxes) > 4
    before = torch.random.get_rng_state()
    digit_scenes(1, "train")
    assert torch.equal(before, torch.random.get_rng_state())


def test_a_full_canvas_stays_with_what_fits():
    crowded = digit_scenes(3, "train", size=32, most=50)
    for boxes in crowded.boxes:
        assert 1 <= len(boxes) < 30
        assert iou(boxes, boxes).fill_diagonal_(0).max() <= scenes.LARGEST_OVERLAP


def test_refusals():
    with refuses(ValueError, "split must be one of train, validation, test, got 'dev'"):
        digit_scenes(1, "dev")
    with refuses(ValueError, "size must be at least 32, got 31"):
        digit_scenes(1, "train", size=31)
    with refuses(ValueError, "count must be at least 1, got 0"):
        digit_scenes(0, "train")
    with refuses(ValueError, "most must be at least 1, got 0"):
        digit_scenes(1, "train", most=0)
