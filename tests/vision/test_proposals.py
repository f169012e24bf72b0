import pytest
import torch

from deepstat.datasets.scenes import digit_scenes
from deepstat.vision import boxes, proposals
from helpers import refuses


def picture(*bright):
    """A dark image with bright rectangles ``x1, y1, x2, y2, grey``."""
    image = torch.zeros(1, 40, 40)
    for x1, y1, x2, y2, grey in bright:
        image[:, y1:y2, x1:x2] = grey
    return image


def test_a_bright_rectangle_is_found_to_a_pixel():
    found = proposals.connected_components(picture((5, 8, 20, 30, 1.0)), (0.5,))
    assert (found - torch.tensor([5.0, 8, 20, 30])).abs().max() <= 1
    assert len(found) == 1


def test_two_parts_are_proposed_alone_and_together():
    parts = (5, 5, 15, 15, 1.0), (16, 5, 26, 15, 1.0)
    found = proposals.connected_components(picture(*parts), (0.6,), gap=3)
    wanted = torch.tensor([[5.0, 5, 15, 15], [16, 5, 26, 15], [5, 5, 26, 15]])
    assert len(found) == 3
    assert (boxes.iou(wanted, found).amax(dim=1) > 0.8).all()
    apart = (5, 5, 15, 15, 1.0), (22, 5, 32, 15, 1.0)
    assert len(proposals.connected_components(picture(*apart), (0.6,), gap=3)) == 2
    assert len(proposals.connected_components(picture(*apart), (0.6,), gap=10)) == 3


def test_thresholds_separate_what_touches():
    image = picture((5, 5, 30, 20, 0.4), (8, 8, 16, 16, 1.0))
    low, high, both = (proposals.connected_components(image, t) for t in ((0.2,), (0.7,), (0.2, 0.7)))
    assert len(low) == len(high) == 1
    assert both.tolist() == sorted(torch.cat([low, high]).tolist())


def test_small_specks_and_empty_images_give_nothing():
    assert proposals.connected_components(picture((5, 5, 8, 8, 1.0)), (0.3,)).shape == (0, 4)
    assert proposals.connected_components(picture()).shape == (0, 4)


def test_proposals_hold_most_digits_of_the_scenes():
    scenes = digit_scenes(60, "validation")
    found = [proposals.connected_components(image) for image in scenes.images]
    assert all(len(f.unique(dim=0)) == len(f) for f in found)
    assert proposals.recall(found, scenes.boxes, 0.5) > 0.75
    assert proposals.recall(found, scenes.boxes, 0.9) < proposals.recall(found, scenes.boxes, 0.5)


def test_recall_by_hand():
    truth = [torch.tensor([[0.0, 0, 10, 10], [20, 20, 30, 30]]), torch.tensor([[0.0, 0, 8, 8]])]
    found = [torch.tensor([[0.0, 0, 10, 5], [1, 0, 9, 5]]), torch.zeros(0, 4)]  # IoU 0.5 and 0.4 with the first
    assert proposals.recall(found, truth, 0.5) == pytest.approx(1 / 3)
    assert proposals.recall(found, truth, 0.51) == 0


def test_assignment_by_hand():
    truth, labels = torch.tensor([[0.0, 0, 10, 10], [20, 0, 30, 10]]), torch.tensor([7, 3])
    some = torch.tensor([[0.0, 0, 10, 5], [0, 0, 10, 4.9], [21, 0, 31, 10], [50, 50, 60, 60]])
    target, code, overlap = proposals.assign(some, truth, labels, 10)
    assert target.tolist() == [7, 10, 3, 10]
    torch.testing.assert_close(overlap, torch.tensor([0.5, 0.49, 9 / 11, 0.0]))
    torch.testing.assert_close(boxes.decode(code[:3], some[:3]), truth[[0, 0, 1]])
    assert proposals.assign(some, truth, labels, 10, threshold=0.49)[0].tolist()[:2] == [7, 7]


def test_sampling_takes_a_quarter_of_objects_at_most():
    target = torch.tensor([10] * 50 + [3] * 20 + [-1] * 30)
    torch.manual_seed(0)
    chosen = proposals.sample(target, 10, 16)
    assert len(chosen.unique()) == 16
    assert (target[chosen[:4]] == 3).all()
    assert (target[chosen[4:]] == 10).all()
    assert len(proposals.sample(target[60:], 10, 16)) == 4  # no background there
    assert len(proposals.sample(target[:50], 10, 60)) == 50
    draws = torch.cat([proposals.sample(target, 10, 16)[:4] for _ in range(500)])
    counts = torch.bincount(draws, minlength=100)[50:70].float()
    assert (counts - 100).abs().max() < 5 * 100**0.5  # each of 20 about 2000 / 20 times


def test_what_is_refused():
    with refuses(ValueError, "image"):
        proposals.connected_components(torch.zeros(40, 40))
    with refuses(ValueError, "thresholds"):
        proposals.connected_components(picture(), ())
    with refuses(ValueError, "truth"):
        proposals.assign(torch.ones(1, 4), torch.zeros(0, 4), torch.zeros(0).long(), 3)
    for size, share in ((0, 0.5), (4, 1.5)):
        with refuses(ValueError, "size"):
            proposals.sample(torch.zeros(3).long(), 1, size, share)
