import jaxtyping
import pytest
import torch
from torch.nn import functional

from deepstat.datasets.scenes import digit_scenes
from deepstat.vision import boxes, faster_rcnn, proposals
from deepstat.vision.average_precision import mean_average_precision
from deepstat.vision.backbone import Backbone


def narrow(**kwargs):
    torch.manual_seed(0)
    return faster_rcnn.FasterRCNN(Backbone(widths=(4, 4, 8, 8, 16)), 10, width=32, **kwargs)


def test_shapes_devices_dtypes_compilation(device, monkeypatch):
    model = narrow().to(device).eval()
    images = torch.rand(2, 1, 48, 64).to(device)
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # the checks cannot be traced
    torch.compiler.reset()
    torch.testing.assert_close(torch.compile(model, backend="eager", fullgraph=True)(images), model(images))
    count = 6 * 8 * len(faster_rcnn.SIZES) * len(faster_rcnn.RATIOS)
    assert model.anchors(48, 64).shape == (count, 4)
    for dtype in (torch.float32, torch.bfloat16):
        features, scores, codes = model.to(dtype)(images.to(dtype))
        assert features.shape == (2, 16, 6, 8)
        assert (scores.shape, codes.shape) == ((2, count), (2, count, 4))
        assert scores.dtype == codes.dtype == dtype


def test_outputs_stand_in_the_order_of_the_anchors():
    rpn = faster_rcnn.RegionProposalNetwork(3, 6).eval()
    features = torch.rand(1, 3, 4, 5)
    scores, codes = rpn(features)
    moved = features.clone()
    moved[0, :, 3, 4] += 1  # the last cell
    changed = (rpn(moved)[0] != scores)[0].unflatten(0, (4, 5, 6)).any(dim=2)
    assert changed[2:, 3:].all()  # a 3 x 3 convolution sees it
    assert not changed[:2].any()
    hidden = rpn.hidden(features).relu()
    torch.testing.assert_close(scores[0].unflatten(0, (4, 5, 6))[1, 2, 3], rpn.scores(hidden)[0, 3, 1, 2])
    torch.testing.assert_close(codes[0].unflatten(0, (4, 5, 6))[1, 2, 3], rpn.codes(hidden)[0, 12:16, 1, 2])


def test_proposals_of_a_network_that_knows():
    model = narrow()
    anchors = model.anchors(64, 64)
    scores = torch.full((1, len(anchors)), -5.0)
    codes = torch.zeros(1, len(anchors), 4)
    truth = torch.tensor([[10.0, 12, 25, 35], [40, 30, 52, 50]])
    best = boxes.iou(truth, anchors).argmax(dim=1)
    scores[0, best] = torch.tensor([5.0, 4.0])
    codes[0, best] = boxes.encode(truth, anchors[best]) / torch.tensor(faster_rcnn.CODE_SCALE)
    (found,) = model.propose(scores, codes, 64, 64, most=10)
    torch.testing.assert_close(found[:2], truth, rtol=1e-4, atol=1e-3)
    assert len(found) == 10
    overlap = boxes.iou(found, found).fill_diagonal_(0)
    assert overlap.max() <= 0.7
    assert found.min() >= 0
    assert found.max() <= 64


def test_the_loss_by_hand(generator):
    scores = torch.randn(5, generator=generator)
    codes, code = 2 * torch.randn(2, 5, 4, generator=generator)
    target = torch.tensor([1, 0, 0, 1, 0])
    p = scores.sigmoid()
    classification = -(p[0].log() + p[3].log() + (1 - p[[1, 2, 4]]).log().sum()) / 5
    regression = sum(functional.smooth_l1_loss(codes[i], code[i], reduction="sum") for i in (0, 3)) / 40
    found = faster_rcnn.rpn_loss(scores, codes, target, code, locations=40, weight=10)
    torch.testing.assert_close(found, classification + 10 * regression)
    none = faster_rcnn.rpn_loss(scores, codes, torch.zeros_like(target), code, locations=40)
    torch.testing.assert_close(none, functional.softplus(scores).mean())


def test_no_gradient_flows_through_the_boxes():
    model = narrow()
    features, scores, codes = model(torch.rand(1, 1, 64, 64))
    assert not any(p.requires_grad for p in model.propose(scores, codes, 64, 64))


@pytest.mark.slow
def test_gradients_reach_all_and_one_batch_is_learned():
    scenes = digit_scenes(4, "train", most=2)
    model = narrow(align=True)
    faster_rcnn.train(model, scenes, steps=1, seed=0, batch=4)
    assert all(p.grad is not None and (p.grad != 0).any() for p in model.parameters())
    faster_rcnn.train(model, scenes, steps=250, seed=0, batch=4, learning_rate=1e-2)
    assert mean_average_precision(faster_rcnn.detect(model, scenes.images), scenes.truths, 10) > 0.95
    with torch.no_grad():
        _, scores, codes = model(scenes.images.to(model.rpn.scores.weight.device))
    found = [p.cpu() for p in model.propose(scores, codes, 64, 64)]
    assert proposals.recall(found, scenes.boxes, 0.7) == 1
