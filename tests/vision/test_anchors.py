import pytest
import torch

from deepstat.vision import anchors, boxes
from helpers import refuses


def test_a_grid_by_hand(device):
    found = anchors.grid(1, 2, 8, [4.0], [1.0, 4.0], device)
    expected = [[2, 2, 6, 6], [0, 3, 8, 5], [10, 2, 14, 6], [8, 3, 16, 5]]  # centres (4, 4) and (12, 4)
    assert found.tolist() == expected
    assert found.device.type == device.type


def test_areas_ratios_and_order():
    found = anchors.grid(3, 5, 16, [10.0, 20.0], [0.5, 1.0, 2.0]).reshape(3, 5, 6, 4)
    width, height = (found[..., 2:] - found[..., :2]).unbind(-1)
    torch.testing.assert_close(width * height, torch.tensor([100.0] * 3 + [400.0] * 3).expand(3, 5, 6))
    torch.testing.assert_close(width / height, torch.tensor([0.5, 1.0, 2.0] * 2).expand(3, 5, 6))
    centre = (found[..., :2] + found[..., 2:]) / 2
    torch.testing.assert_close(centre[2, 4], torch.tensor([[72.0, 40.0]]).expand(6, 2))  # row 2, column 4: y 40, x 72
    assert (centre == centre[:, :, :1]).all()


def test_matching_by_hand():
    truth = torch.tensor([[0.0, 0, 10, 10], [20, 0, 30, 10]])
    candidates = torch.tensor(
        [
            [0.0, 0, 10, 10],  # IoU 1 with the first
            [0, 0, 10, 8],  # 0.8
            [0, 0, 10, 5],  # 0.5: in between
            [0, 0, 10, 2],  # 0.2: background
            [24, 0, 34, 10],  # 60 / 140 = 0.43 with the second: its best, and forced
            [26, 0, 36, 10],  # 0.25
        ]
    )
    assert anchors.match(candidates, truth, 0.3, 0.7).tolist() == [0, 0, -2, -1, 1, -1]
    assert anchors.match(candidates, truth, 0.5, 0.5).tolist() == [0, 0, 0, -1, 1, -1]


def test_thresholds_are_met_with_equality():
    truth = torch.tensor([[0.0, 0, 4, 4], [100, 0, 104, 4]])
    candidates = torch.tensor([[0.0, 0, 4, 4], [0, 0, 4, 2], [0, 0, 4, 1], [100, 0, 104, 4]])  # IoU 1, 1/2, 1/4
    assert anchors.match(candidates, truth, 0.25, 0.5).tolist() == [0, 0, -2, 1]


def test_two_truths_with_one_best_anchor_both_get_an_anchor():
    truth = torch.tensor([[0.0, 0, 10, 10], [1, 0, 11, 10]])
    candidates = torch.tensor([[1.0, 0, 11, 10], [6, 0, 16, 10]])  # the first is the best for both
    assert anchors.match(candidates, truth, 0.9, 0.95).tolist() == [1, 0]


def test_a_forced_anchor_is_taken_from_a_truth_with_several():
    truth = torch.tensor([[0.0, 0, 10, 10], [8, 0, 18, 10]])
    candidates = torch.tensor([[0.0, 0, 10, 10], [1, 0, 11, 10]])
    assert anchors.match(candidates, truth, 0.3, 0.5).tolist() == [0, 1]


def test_every_truth_has_an_anchor_and_matched_ones_overlap_most(generator):
    corner = 50 * torch.rand(40, 2, generator=generator)
    truth = torch.cat([corner, corner + 5 + 20 * torch.rand(40, 2, generator=generator)], dim=1)
    candidates = anchors.grid(8, 8, 8, [12.0, 24.0], [0.5, 1.0])
    for few in truth.split(4):
        index = anchors.match(candidates, few, 0.3, 0.6)
        overlap = boxes.iou(candidates, few)
        assert set(range(4)) <= set(index.tolist())
        best, owner = overlap.max(dim=1)
        assert (best[index == -1] < 0.3).all()
        assert ((best >= 0.3) & (best < 0.6))[index == -2].all()
        forced = (index >= 0) & ((best < 0.6) | (index != owner))
        assert forced.sum() <= 4


def test_no_truth_no_anchor_no_overlap():
    candidates = anchors.grid(2, 2, 8, [8.0], [1.0])
    assert anchors.match(candidates, torch.zeros(0, 4), 0.3, 0.7).tolist() == [-1] * 4
    assert anchors.match(torch.zeros(0, 4), torch.ones(1, 4), 0.3, 0.7).shape == (0,)
    assert anchors.match(candidates, torch.tensor([[90.0, 90, 95, 95]]), 0.3, 0.7).tolist() == [-1] * 4


def test_what_is_refused():
    for bad in ({"height": 0}, {"stride": 0.0}, {"sizes": []}, {"sizes": [-1.0]}, {"ratios": [float("inf")]}):
        with refuses(ValueError, next(iter(bad))):
            anchors.grid(**{"height": 2, "width": 2, "stride": 8.0, "sizes": [8.0], "ratios": [1.0], **bad})
    for low, high in ((0.7, 0.3), (-0.1, 0.5), (0.5, 1.1)):
        with refuses(ValueError, "low"):
            anchors.match(torch.zeros(1, 4), torch.zeros(1, 4), low, high)


def test_the_number_of_anchors_of_the_paper():
    # a 1000 x 600 image, stride 16, 3 sizes, 3 ratios: "roughly 20000 (60 x 40 x 9)" in Ren et al., 2015
    assert len(anchors.grid(38, 63, 16, [128, 256, 512], [0.5, 1, 2])) == 21_546


@pytest.mark.parametrize("count", [1, 3])
def test_matching_ignores_the_order_of_the_truths(count, generator):
    corner = 40 * torch.rand(count, 2, generator=generator)
    truth = torch.cat([corner, corner + 15], dim=1)
    candidates = anchors.grid(8, 8, 8, [14.0], [1.0])
    index = anchors.match(candidates, truth, 0.3, 0.5)
    flipped = anchors.match(candidates, truth.flip(0), 0.3, 0.5)
    torch.testing.assert_close(torch.where(index < 0, index, count - 1 - index), flipped)
