import pytest
import torch

from deepstat.datasets.scenes import Scenes, digit_scenes
from deepstat.seeding import seed_everything
from deepstat.vision import yolo
from deepstat.vision.average_precision import mean_average_precision
from deepstat.vision.backbone import Backbone
from deepstat.vision.boxes import iou
from helpers import refuses
from vision.networks import compiles, gradients_reach_every_parameter

SLIM = (4, 4, 8, 8, 16)


def network(widths=SLIM, classes=10):
    seed_everything(0)
    return yolo.YOLO(Backbone(widths=widths), classes, width=16)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_row_of_outputs_for_each_cell(dtype, device):
    model = network().to(device, dtype)
    found = model(torch.rand(2, 1, 32, 48, dtype=dtype, device=device))
    assert found.shape == (2, 4, 6, 2 * 5 + 10)
    assert found.dtype == dtype
    assert found.isfinite().all()


def test_the_papers_numbers():
    """Seven by seven cells, two boxes, twenty classes: 7 * 7 * 30 outputs and 98 boxes."""
    model = yolo.YOLO(Backbone(inputs=3), 20)
    found = model.eval()(torch.rand(1, 3, 56, 56))
    assert found.shape == (1, 7, 7, 30)
    assert found.shape[1] * found.shape[2] * model.boxes == 98


def test_it_refuses():
    with refuses(ValueError, "multiples of 8, such as 64 x 64, got 64 x 60"):
        network()(torch.rand(1, 1, 64, 60))
    with refuses(ValueError, "boxes and classes must be at least 1, got 0 and 10"):
        yolo.YOLO(Backbone(), 10, boxes=0)


def scene(boxes, labels, size=64):
    return Scenes(torch.zeros(1, 1, size, size), [torch.tensor(boxes)], [torch.tensor(labels)])


def test_targets_by_hand():
    wanted = yolo.targets(scene([[10.0, 20, 26, 29]], [7]), 8)  # centre (18, 24.5), 16 x 9
    assert wanted.shape == (1, 8, 8, 6)
    assert wanted[0, 3, 2].tolist() == pytest.approx([1, 0.25, 0.0625, 0.5, 0.375, 7])
    assert wanted.count_nonzero() == 6
    crowded = yolo.targets(scene([[10.0, 20, 26, 29], [16, 22, 22, 30]], [7, 3]), 8)  # both centres in the cell
    assert crowded[..., 0].sum() == 1
    assert crowded[0, 3, 2, 5] == 3


def test_boxes_are_the_inverse_of_targets():
    scenes = digit_scenes(40, "train")
    wanted = yolo.targets(scenes, 8)
    boxes = yolo.to_boxes(wanted[..., 1:5], 8)
    assert boxes.shape == (40, 8, 8, 4)
    assert torch.equal(yolo.to_boxes(wanted[..., None, 1:5].expand(-1, -1, -1, 3, -1), 8)[..., 1, :], boxes)
    for i, (truth, _) in enumerate(scenes.truths):
        found = boxes[i][wanted[i, ..., 0] == 1]
        assert iou(found, truth).amax(dim=1).min() > 1 - 1e-4
    one = yolo.to_boxes(torch.tensor([[0.25, 0.0625, 0.5, 0.375]]).expand(1, 4, 8, 4), 8)  # 64 wide, 32 high
    torch.testing.assert_close(one[0, 3, 2], torch.tensor([10, 24.5 - 2.25, 26, 24.5 + 2.25]))


def plain_loss(output, target, boxes, stride, coordinates=5.0, empty=0.5):
    """Equation 3 of the paper, cell by cell in plain loops."""
    n, rows, columns, _ = output.shape
    total = 0.0
    for i in range(n):
        for r in range(rows):
            for c in range(columns):
                out, want = output[i, r, c], target[i, r, c]
                each = [out[5 * a : 5 * a + 5] for a in range(boxes)]
                if want[0] == 0:
                    total += empty * sum(float(e[0]) ** 2 for e in each)
                    continue

                def pixels(x, y, u, v, r=r, c=c):
                    w, h = float(u) ** 2 * columns * stride, float(v) ** 2 * rows * stride
                    x, y = (c + float(x)) * stride, (r + float(y)) * stride
                    return torch.tensor([[x - w / 2, y - h / 2, x + w / 2, y + h / 2]])

                overlaps = [float(iou(pixels(*e[1:]), pixels(*want[1:5]))) for e in each]
                chosen = max(range(boxes), key=lambda a: overlaps[a])
                for a, e in enumerate(each):
                    if a == chosen:
                        total += coordinates * float((e[1:] - want[1:5]).square().sum())
                        total += (float(e[0]) - overlaps[a]) ** 2
                    else:
                        total += empty * float(e[0]) ** 2
                kind = torch.zeros(len(out) - 5 * boxes)
                kind[int(want[5])] = 1
                total += float((out[5 * boxes :] - kind).square().sum())
    return total / n


@pytest.mark.parametrize("weights", [{}, {"coordinates": 2.0, "empty": 3.0}])
def test_the_loss_is_the_papers_sum(weights, generator):
    scenes = digit_scenes(3, "train")
    target = yolo.targets(scenes, 8)
    output = 0.5 * torch.rand(3, 8, 8, 20, generator=generator)
    target[0] = 0  # an image without objects
    value = yolo.loss(output, target, 2, 8, **weights)
    assert value.item() == pytest.approx(plain_loss(output, target, 2, 8, **weights), rel=1e-5)


def test_a_perfect_prediction_has_loss_0_and_only_the_responsible_box_is_moved():
    target = yolo.targets(scene([[10.0, 20, 26, 29]], [7]), 8)
    output = torch.zeros(1, 8, 8, 20)
    output[0, 3, 2, 5:10] = torch.tensor([1, 0.25, 0.0625, 0.5, 0.375])  # the second box
    output[0, 3, 2, 10 + 7] = 1
    output.requires_grad_()
    assert yolo.loss(output, target, 2, 8).item() == pytest.approx(0, abs=1e-8)
    shifted = output.detach().clone()
    shifted[0, 3, 2, 6] += 0.2
    shifted.requires_grad_()
    yolo.loss(shifted, target, 2, 8).backward()
    assert shifted.grad[0, 3, 2, 6] == pytest.approx(2 * 5 * 0.2)
    assert shifted.grad[0, 3, 2, 1:5].count_nonzero() == 0


@pytest.mark.slow
def test_every_parameter_learns_and_one_batch_is_overfitted(device):
    scenes = digit_scenes(8, "train")
    model = network((8, 8, 16, 16, 32)).to(device)
    first = yolo.loss(model(scenes.images.to(device)), yolo.targets(scenes, 8).to(device), 2, 8)
    gradients_reach_every_parameter(model, first)
    yolo.train(model, scenes, steps=150, seed=0, batch=8)
    found = yolo.detect(model, scenes.images)
    assert mean_average_precision(found, scenes.truths, 10) > 0.8


def test_the_network_compiles(monkeypatch):
    compiles(network(), torch.rand(2, 1, 32, 32), monkeypatch)


class Fixed(yolo.YOLO):
    """A network that always says the same."""

    def __init__(self, output):
        super().__init__(Backbone(widths=SLIM), 10)
        self.output = output

    def forward(self, images):
        return self.output


def test_detections_by_hand():
    output = torch.zeros(1, 8, 8, 20)
    output[0, 3, 2, :10] = torch.tensor([0.5, 0.25, 0.0625, 0.5, 0.375, 0.9, 0.25, 0.0625, 0.5, 0.4])
    output[0, 3, 2, 17] = 0.8  # class 7; both boxes of the cell overlap, the second is surer
    output[0, 0, 0, :5] = torch.tensor([0.4, 0, 0, 0.5, 0.5])  # centre in the corner of the image: clipped
    output[0, 0, 0, 11] = 0.5
    output[0, 7, 7, :5], output[0, 7, 7, 12] = torch.tensor([0.1, 0.5, 0.5, 0.4, 0.4]), 0.19  # .019: too weak
    (found,) = yolo.detect(Fixed(output), torch.zeros(1, 1, 64, 64))
    assert found.labels.tolist() == [7, 1]
    assert found.scores.tolist() == pytest.approx([0.72, 0.2])
    expected = [[10, 24.5 - 5.12, 26, 24.5 + 5.12], [0, 0, 8, 8]]
    torch.testing.assert_close(found.boxes, torch.tensor(expected))
    (few,) = yolo.detect(Fixed(output), torch.zeros(1, 1, 64, 64), lowest=0.3)
    assert few.labels.tolist() == [7]
    (both,) = yolo.detect(Fixed(output), torch.zeros(1, 1, 64, 64), overlap=1.0)
    assert both.labels.tolist() == [7, 7, 1]
