import jaxtyping
import pytest
import torch
from torch.nn import functional

from deepstat.datasets.scenes import digit_scenes
from deepstat.vision import boxes, fast_rcnn, roi_pooling
from deepstat.vision.backbone import Backbone


def narrow(**kwargs):
    torch.manual_seed(0)
    return fast_rcnn.FastRCNN(Backbone(widths=(4, 4, 8, 8, 8)), 10, width=32, **kwargs)


def regions():
    return torch.rand(2, 1, 64, 72), torch.tensor([[0.0, 0, 20, 20], [10, 5, 40, 60], [2, 2, 12, 12]]), torch.tensor([0, 0, 1])


@pytest.mark.slow
@pytest.mark.parametrize("align", [False, True])
def test_shapes_devices_dtypes_compilation(align, device, monkeypatch):
    model = narrow(align=align).to(device).eval()
    images, rois, image = (x.to(device) for x in regions())
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # the checks cannot be traced
    torch.compiler.reset()
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(images, rois, image), model(images, rois, image))
    for dtype in (torch.float32, torch.bfloat16):
        scores, codes = model.to(dtype)(images.to(dtype), rois, image)
        assert (scores.shape, codes.shape) == ((3, 11), (3, 10, 4))
        assert scores.dtype == codes.dtype == dtype
        assert scores.isfinite().all()


def test_the_head_pools_the_map_of_the_whole_image():
    images, rois, image = regions()
    for align, pool in ((False, roi_pooling.roi_pool), (True, roi_pooling.roi_align)):
        model = narrow(align=align).eval()
        pooled = pool(model.backbone(images), rois, image, 4, 8).flatten(1)
        h = torch.relu(model.head.hidden(pooled))
        torch.testing.assert_close(model(images, rois, image)[0], model.head.scores(h))


def test_the_loss_by_hand_and_by_pytorch(generator):
    logits = torch.randn(6, 4, generator=generator)
    codes = 2 * torch.randn(6, 3, 4, generator=generator)
    code = torch.randn(6, 4, generator=generator)
    target = torch.tensor([0, 3, 2, 1, 3, 0])  # 3 is the background
    total = 0.0
    for i, u in enumerate(target.tolist()):
        total += -logits[i].log_softmax(0)[u]
        if u < 3:
            total += 2.5 * functional.smooth_l1_loss(codes[i, u], code[i], reduction="sum")
    torch.testing.assert_close(fast_rcnn.multi_task_loss(logits, codes, target, code, 2.5), total / 6)
    code[1] = float("inf")  # a background's code must not count
    assert fast_rcnn.multi_task_loss(logits, codes, target, code).isfinite()
    only = fast_rcnn.multi_task_loss(logits, codes, torch.full((6,), 3), code)
    torch.testing.assert_close(only, functional.cross_entropy(logits, torch.full((6,), 3)))


@pytest.mark.slow
def test_gradients_reach_all_and_one_batch_is_learned_boxes_too():
    scenes = digit_scenes(4, "train", most=2)
    some = [torch.cat([truth + torch.tensor([-2.0, -2, 3, 1]), truth - 16]) for truth in scenes.boxes]
    model = narrow(align=True)
    fast_rcnn.train(model, scenes, some, steps=1, seed=0, batch=4)
    assert all(p.grad is not None and (p.grad != 0).any() for p in model.parameters())
    fast_rcnn.train(model, scenes, some, steps=250, seed=0, batch=4, learning_rate=1e-2)
    found = fast_rcnn.detect(model, scenes.images, some)
    for detections, truth, labels in zip(found, *zip(*scenes.truths, strict=True), strict=True):
        best = detections.boxes[detections.scores > 0.7]
        overlap = boxes.iou(truth, best)
        assert (overlap.amax(dim=1) > 0.8).all()  # better than the proposals
        assert (detections.labels[detections.scores > 0.7][overlap.argmax(dim=1)] == labels).all()


def test_detections_are_decoded_on_the_scale_of_the_codes():
    logits = torch.tensor([[5.0, 0.0, 0.0]])
    codes = torch.zeros(1, 2, 4)
    codes[0, 0] = torch.tensor([1.0, 0, 5, 0])  # 0.1 widths to the right, exp(1) times as wide
    (found,) = fast_rcnn.to_detections(logits, codes, [torch.tensor([[20.0, 20, 30, 30]])], 64, 64, 0.1)
    half = 5 * torch.e
    torch.testing.assert_close(found.boxes, torch.tensor([[26 - half, 20, 26 + half, 30]]))
    torch.testing.assert_close(found.scores, logits.softmax(1)[:, 0])
