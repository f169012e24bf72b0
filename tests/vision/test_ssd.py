import pytest
import torch
from torch.nn import functional

from deepstat.datasets.scenes import digit_scenes
from deepstat.seeding import seed_everything
from deepstat.vision import ssd
from deepstat.vision.average_precision import mean_average_precision
from deepstat.vision.backbone import Backbone
from deepstat.vision.boxes import area, iou
from deepstat.vision.fast_rcnn import CODE_SCALE
from helpers import refuses
from vision.networks import compiles, gradients_reach_every_parameter

SLIM = (4, 4, 8, 8, 16)
SIX, FOUR = (1.0, 2.0, 3.0, 1 / 2, 1 / 3), (1.0, 2.0, 1 / 2)


def network(widths=SLIM):
    seed_everything(0)
    return ssd.SSD(Backbone(widths=widths), 10, width=16)


def test_ssd300_has_8732_default_boxes_and_ssd512_24564():
    scales = [0.2, 0.34, 0.48, 0.62, 0.76, 0.9, 1.04]
    boxes = ssd.default_boxes(300, (38, 19, 10, 5, 3, 1), scales, (FOUR, SIX, SIX, SIX, FOUR, FOUR))
    assert len(boxes) == 8732 == 38**2 * 4 + 19**2 * 6 + 10**2 * 6 + 5**2 * 6 + 3**2 * 4 + 4
    maps = (64, 32, 16, 8, 4, 2, 1)
    more = ssd.default_boxes(512, maps, [0.1 * k for k in range(1, 9)], (FOUR, SIX, SIX, SIX, SIX, FOUR, FOUR))
    assert len(more) == 24564


def test_default_boxes_by_hand():
    boxes = ssd.default_boxes(60, (3, 2), (0.1, 0.4, 0.9), ((1.0, 4.0), (0.25,)))
    assert boxes.shape == (9 * 3 + 4 * 2, 4)
    centre, sides = (boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2:] - boxes[:, :2]
    assert centre[:3].tolist() == [[10, 10]] * 3
    assert centre[3 * 5].tolist() == [50, 30]  # the second row, the third column
    assert sides[:3].flatten().tolist() == pytest.approx([6, 6, 12, 3, 12, 12])  # 6 * sqrt(4), 6 / sqrt(4); sqrt(.1 * .4)
    assert centre[27:29].tolist() == [[15, 15]] * 2
    assert sides[27:29].flatten().tolist() == pytest.approx([12, 48, 36, 36])
    torch.testing.assert_close(area(boxes)[:2], torch.tensor([36.0, 36.0]))  # the ratio keeps the area
    with refuses(ValueError, "got 2 maps, 2 scales and 2 lists"):
        ssd.default_boxes(60, (3, 2), (0.1, 0.4), ((1.0,), (1.0,)))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_scores_and_codes_for_each_default_box(dtype, device):
    model = network().to(device, dtype)
    scores, codes = model(torch.rand(2, 1, 64, 64, dtype=dtype, device=device))
    assert len(model.default) == 3 * (64 + 16 + 4)
    assert scores.shape == (2, len(model.default), 11)
    assert codes.shape == (2, len(model.default), 4)
    assert scores.dtype == codes.dtype == dtype
    assert scores.isfinite().all()
    assert codes.isfinite().all()


def test_outputs_stand_in_the_order_of_the_default_boxes():
    """What the heads say at a cell depends on the image near the boxes that lie there."""
    model = network().eval()
    images = torch.rand(1, 1, 64, 64, requires_grad=True)
    scores, _ = model(images)
    for k in (0, 100, 191):  # boxes of the finest map, whose cells see less than the image
        (grad,) = torch.autograd.grad(scores[0, k].sum(), images, retain_graph=True)
        rows, columns = (grad[0, 0].abs().sum(dim).nonzero() for dim in (1, 0))
        x, y = ((model.default[k, :2] + model.default[k, 2:]) / 2).tolist()
        for seen, place in ((rows, y), (columns, x)):
            low, high = max(0, place - 25), min(63, place + 24)  # 34 pixels, and 8 more on each side
            assert (int(seen.min()), int(seen.max())) == (low, high)


def test_it_refuses():
    with refuses(ValueError, "size must be a multiple of 32 for 3 maps, such as 64, got 48"):
        ssd.SSD(Backbone(), 10, size=48)
    with refuses(ValueError, r"scales must be at least two numbers, got \(0.2,\)"):
        ssd.SSD(Backbone(), 10, scales=(0.2,))
    with refuses(ValueError, "images must be 64 x 64, got 128 x 64"):
        network()(torch.rand(1, 1, 128, 64))
    with refuses(ValueError, "multiples of 64, such as 64 x 64, got 32 x 64"):
        network()(torch.rand(1, 1, 32, 64))


def test_targets_give_each_object_its_best_box_and_all_that_overlap_by_half():
    scenes = digit_scenes(30, "train")
    default = network().default
    classes, codes = ssd.targets(default, scenes)
    for i, (truth, labels) in enumerate(scenes.truths):
        overlap = iou(default, truth)
        mine = classes[i] < 10
        assert mine[overlap.amax(1) >= 0.5].all()
        assert mine.sum() >= len(truth)
        forced = mine & (overlap.amax(1) < 0.5)
        assert forced.sum() <= len(truth)
        assert set(classes[i][mine].tolist()) == set(labels.tolist())
        free = mine & ~forced
        owner = overlap.argmax(1)
        assert (classes[i][free] == labels[owner[free]]).all()
        code = codes[i][free] * torch.tensor(CODE_SCALE)
        width = default[free, 2] - default[free, 0]
        centre = (default[free, 0] + default[free, 2]) / 2 + code[:, 0] * width
        torch.testing.assert_close(centre, (truth[owner[free], 0] + truth[owner[free], 2]) / 2, rtol=0, atol=1e-3)


def test_hard_negatives_are_the_worst_three_for_each_positive():
    losses = torch.tensor([[9.0, 1, 5, 3, 4, 2, 8], [1, 2, 3, 4, 5, 6, 7]])
    positive = torch.tensor([[1.0, 0, 0, 0, 0, 0, 0], [0] * 7])
    assert ssd.hard_negatives(losses, positive).tolist() == [[0, 0, 1, 0, 1, 0, 1], [0] * 7]
    assert ssd.hard_negatives(losses, positive, ratio=9)[0].tolist() == [0, 1, 1, 1, 1, 1, 1]  # all there are
    perfect = ssd.hard_negatives(torch.tensor([[0.0, 0, 0, 5]]), torch.tensor([[1.0, 0, 0, 0]]))
    assert perfect.tolist() == [[0, 1, 1, 1]]  # a positive does not take the place of a negative of no loss


def test_the_loss_by_plain_sums(generator):
    scores, codes = torch.randn(2, 12, 5, generator=generator), torch.randn(2, 12, 4, generator=generator)
    code = torch.randn(2, 12, 4, generator=generator)
    target = torch.full((2, 12), 4)
    target[0, :2], target[1, 5] = torch.tensor([1, 3]), 0
    total = 0.0
    for i in range(2):
        entropy = functional.cross_entropy(scores[i], target[i], reduction="none")
        positive = target[i] < 4
        hard = entropy[~positive].sort(descending=True).values[: 3 * int(positive.sum())]
        total += float(entropy[positive].sum() + hard.sum())
        smooth = functional.smooth_l1_loss(codes[i][positive], code[i][positive], reduction="sum")
        total += 2.5 * float(smooth)
    assert ssd.loss(scores, codes, target, code, weight=2.5).item() == pytest.approx(total / 3, rel=1e-6)
    assert ssd.loss(scores, codes, torch.full((2, 12), 4), code).item() == 0  # no object, no negative


@pytest.mark.slow
def test_every_parameter_learns_and_one_batch_is_overfitted(device):
    scenes = digit_scenes(4, "train")
    model = network((8, 8, 16, 16, 32)).to(device)
    target, code = ssd.targets(model.default.cpu(), scenes)
    first = ssd.loss(*model(scenes.images.to(device)), target.to(device), code.to(device))
    gradients_reach_every_parameter(model, first)
    ssd.train(model, scenes, steps=100, seed=0, batch=4)
    found = ssd.detect(model, scenes.images)
    assert mean_average_precision(found, scenes.truths, 10) > 0.8


@pytest.mark.slow
def test_the_network_compiles(monkeypatch):
    compiles(network(), torch.rand(2, 1, 64, 64), monkeypatch)


class Fixed(ssd.SSD):
    """A network that always says the same."""

    def __init__(self, scores, codes):
        super().__init__(Backbone(widths=SLIM), 2)
        self.fixed = scores, codes
        self.default = torch.tensor([[10.0, 10, 30, 50], [12, 10, 32, 50], [40, 40, 80, 60]])

    def forward(self, images):
        return self.fixed


def test_detections_by_hand():
    chance = torch.tensor([[[0.7, 0.1, 0.2], [0.6, 0.3, 0.1], [0.015, 0.46, 0.525]]])  # two classes, background
    codes = torch.zeros(1, 3, 4)
    codes[0, 0] = torch.tensor([1.0, 0, 0, 5 * torch.tensor(0.5).log()])  # 2 to the right, half as high
    (found,) = ssd.detect(Fixed(chance.log(), codes), torch.zeros(1, 1, 64, 64), overlap=0.4)
    expected = [(0.7, 0, [12, 20, 32, 40]), (0.46, 1, [40, 40, 64, 60]), (0.3, 1, [12, 10, 32, 50])]
    assert found.scores.tolist() == pytest.approx([0.7, 0.46, 0.3])  # IoU 1/2 with a .6 and a .1: dropped
    assert found.labels.tolist() == [label for _, label, _ in expected]
    torch.testing.assert_close(found.boxes, torch.tensor([box for *_, box in expected]).float())
    (all_,) = ssd.detect(Fixed(chance.log(), codes), torch.zeros(1, 1, 64, 64), overlap=0.6)
    assert len(all_) == 5
