import jaxtyping
import pytest
import torch
from sklearn.linear_model import Ridge

from deepstat.datasets.scenes import digit_scenes
from deepstat.vision import boxes, proposals, rcnn
from deepstat.vision.average_precision import mean_average_precision
from deepstat.vision.backbone import Backbone
from deepstat.vision.roi_pooling import warp
from helpers import refuses


def narrow(**kwargs):
    torch.manual_seed(0)
    return rcnn.RCNN(Backbone(widths=(4, 4, 8, 8, 8)), 10, **{"width": 16, **kwargs})


def regions():
    rois = torch.tensor([[0.0, 0, 20, 20], [10, 5, 40, 60], [30, 30, 50, 44], [2, 2, 12, 12]])
    return torch.rand(2, 1, 64, 64), rois, torch.tensor([0, 0, 1, 1])


def test_shapes_devices_dtypes(device):
    model = narrow().to(device).eval()
    images, rois, image = (x.to(device) for x in regions())
    for dtype in (torch.float32, torch.bfloat16):
        scores = model.to(dtype)(images.to(dtype), rois, image)
        assert scores.shape == (4, 11)
        assert scores.dtype == dtype
        assert scores.isfinite().all()


def test_each_region_goes_through_the_network_by_itself():
    model = narrow().eval()
    images, rois, image = regions()
    crops = warp(images, rois, image, 32, 3)
    alone = torch.cat([model.backbone(crop[None]).flatten(1) for crop in crops])
    torch.testing.assert_close(model.describe(images, rois, image), alone, rtol=1e-4, atol=1e-5)
    changed = images.clone()
    changed[0, :, 62:] = 1  # outside of all crops of that image but the second
    moved = (model(changed, rois, image) != model(images, rois, image)).any(dim=1)
    assert moved.tolist() == [False, True, False, False]


@pytest.mark.slow
def test_compilation(monkeypatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # the checks cannot be traced
    torch.compiler.reset()
    model = narrow().eval()
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(*regions()), model(*regions()), rtol=10, atol=10)  # other random images
    fixed = regions()
    torch.testing.assert_close(compiled(*fixed), model(*fixed))


@pytest.mark.slow
def test_gradients_reach_all_and_one_batch_is_learned():
    scenes = digit_scenes(4, "train", most=2)
    some = [torch.cat([truth - 14, truth + 9]) for truth in scenes.boxes]
    model = narrow()
    first = rcnn.fine_tune(model, scenes, some, steps=1, seed=0, batch=4, regions=16)
    assert all(p.grad is not None and (p.grad != 0).any() for p in model.parameters())
    rcnn.fine_tune(model, scenes, some, steps=80, seed=0, batch=4, regions=16, learning_rate=1e-2)
    last = rcnn.fine_tune(model, scenes, some, steps=1, seed=0, batch=4, regions=16, learning_rate=1e-9)
    assert last < 0.1 * first


def test_lessons_and_draws():
    scenes = digit_scenes(3, "train")
    some = [proposals.connected_components(image) for image in scenes.images]
    lessons = [rcnn.lesson(*row, 10) for row in zip(some, scenes.boxes, scenes.labels, strict=True)]
    for (rois, target, code), truth, labels in zip(lessons, scenes.boxes, scenes.labels, strict=True):
        assert (rois[-len(truth) :] == truth).all()
        assert (target[-len(truth) :] == labels).all()
        assert code[-len(truth) :].abs().max() < 1e-6
    rois, image, target, code = rcnn.draw(lessons, torch.tensor([2, 0]), 10, 4)
    assert image.unique().tolist() == [0, 1]
    overlap = boxes.iou(rois[image == 0], scenes.boxes[2]).amax(dim=1)
    assert ((overlap >= 0.5) == (target[image == 0] < 10)).all()
    assert len(code) == len(rois)


@pytest.fixture(scope="module")
def toy():
    """Regions whose features say all: a one-hot code of the class in the hidden units, the box code in the rest."""
    scenes = digit_scenes(150, "train")
    generator = torch.Generator().manual_seed(0)
    noise = [1.5 * torch.randn(b.shape, generator=generator).clamp(-1.2, 1.2) for b in scenes.boxes]
    near = [b + e for b, e in zip(scenes.boxes, noise, strict=True)]  # no side becomes negative
    far = [torch.tensor([[0.0, 0, 6, 6], [58, 58, 64, 64]]) for _ in near]
    some = [torch.cat(pair) for pair in zip(near, far, strict=True)]

    def features(regions):
        pooled, hidden = [], []
        for p, truth, labels in zip(regions, scenes.boxes, scenes.labels, strict=True):
            target, code, _ = proposals.assign(p, truth, labels, 10, threshold=0.3)
            pooled.append(code)
            hidden.append(torch.nn.functional.one_hot(target, 11).float())
        return torch.cat(pooled), torch.cat(hidden)

    both = [torch.cat(pair) for pair in zip(some, scenes.boxes, strict=True)]
    return scenes, some, features(some), features(both)


@pytest.mark.slow
def test_linear_stages_on_features_that_say_all(toy):
    scenes, some, alone, both = toy
    heads = rcnn.fit_heads(both, scenes, some, c=10.0, alpha=1e-6)
    found = rcnn.detect(heads, alone, some, 64, 64, lowest=-0.5)
    assert mean_average_precision(found, scenes.truths, 10, threshold=0.9) > 0.95
    rough = rcnn.detect(heads, alone, some, 64, 64, refine=False, lowest=-0.5)
    assert mean_average_precision(rough, scenes.truths, 10, threshold=0.9) < 0.6
    assert mean_average_precision(rough, scenes.truths, 10, threshold=0.3) > 0.95


@pytest.mark.slow
def test_the_svms_never_see_proposals_that_overlap_an_object(toy):
    scenes, some, _, (pooled, hidden) = toy
    rows = []
    for p, truth, labels in zip(some, scenes.boxes, scenes.labels, strict=True):
        target = proposals.assign(torch.cat([p, truth]), truth, labels, 10, threshold=0.3)[0]
        rows.append((target < 10) & (torch.arange(len(target)) < len(p)))
    hidden = hidden.masked_fill(torch.cat(rows)[:, None], float("nan"))  # scikit-learn refuses NaN
    heads = rcnn.fit_heads((pooled, hidden), scenes, some)
    assert heads.svm.classes_.tolist() == list(range(11))


def test_regressions_use_what_overlaps_well_and_the_papers_penalty(toy):
    scenes, some, _, both = toy
    heads = rcnn.fit_heads(both, scenes, some)
    assert all(r.alpha == 1000 for r in heads.ridge)
    x, y = [], []
    for p, truth, labels in zip(some, scenes.boxes, scenes.labels, strict=True):
        p = torch.cat([p, truth])
        target, code, overlap = proposals.assign(p, truth, labels, 10, threshold=0.6001)
        x.append(code[target == 4])
        y.append(code[target == 4])
    direct = Ridge(alpha=1000.0).fit(torch.cat(x).double(), torch.cat(y).double())
    assert abs(heads.ridge[4].coef_ - direct.coef_).max() < 1e-6


def test_features_of_all_regions_do_not_depend_on_the_chunks():
    scenes = digit_scenes(7, "train")
    some = [proposals.connected_components(image) for image in scenes.images]
    model = narrow()
    for a, b in zip(*(rcnn.describe_all(model, scenes.images, some, chunk) for chunk in (2, 50)), strict=True):
        assert len(a) == sum(map(len, some))
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


def test_postprocessing_by_hand():
    rois = [torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 8], [30, 30, 70, 40]]), torch.tensor([[5.0, 5, 9, 9]])]
    scores = torch.tensor([[0.9, 0.0], [0.8, 0.7], [0.0, 0.6], [0.1, 0.05]])
    codes = torch.zeros(4, 2, 4)
    codes[3, 0] = torch.tensor([0.5, 0, 0, 0])
    first, second = rcnn.postprocess(scores, codes, rois, 64, 64, lowest=0.1)
    torch.testing.assert_close(first.boxes, torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 8], [30, 30, 64, 40]]))
    assert first.labels.tolist() == [0, 1, 1]  # the second box of class 0 overlaps the first
    torch.testing.assert_close(second.boxes, torch.tensor([[7.0, 5, 11, 9]]))
    assert second.scores.tolist() == pytest.approx([0.1])


def test_what_is_refused():
    with refuses(ValueError, "size must be a multiple of 8, such as 32"):
        narrow(size=30)
