import pytest
import torch
from sklearn import metrics

from deepstat.vision import average_precision as ap
from deepstat.vision.average_precision import Detections, average_precision
from helpers import refuses

# Five objects, seven detections, worked by hand. Precision after each: 1, 1, 2/3, 2/4, 3/5, 3/6, 4/7;
# recall: .2, .4, .4, .4, .6, .6, .8; interpolated: 1 up to recall .4, 3/5 up to .6, 4/7 up to .8, then 0.
SCORES = torch.tensor([0.95, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4])
CORRECT = torch.tensor([True, True, False, False, True, False, True])


def test_the_worked_example():
    all_points = 0.4 * 1 + 0.2 * 3 / 5 + 0.2 * 4 / 7
    assert average_precision(SCORES, CORRECT, 5) == pytest.approx(all_points, rel=1e-12)
    eleven = (5 * 1 + 2 * 3 / 5 + 2 * 4 / 7) / 11  # recalls 0 to .4, .5 and .6, .7 and .8
    assert average_precision(SCORES, CORRECT, 5, points=11) == pytest.approx(eleven, rel=1e-12)
    order = torch.tensor([3, 0, 6, 2, 5, 1, 4])
    assert average_precision(SCORES[order], CORRECT[order], 5) == pytest.approx(all_points, rel=1e-12)


def test_many_points_approach_the_integral(generator):
    scores = torch.rand(200, generator=generator)
    correct = torch.rand(200, generator=generator) < scores
    positives = int(correct.sum()) + 20
    fine = average_precision(scores, correct, positives, points=100_001)
    assert average_precision(scores, correct, positives) == pytest.approx(fine, abs=1e-5)


def test_scikit_learn_agrees_where_precision_falls_and_bounds_from_below_elsewhere(generator):
    """Theirs is the same sum without interpolation, over a curve on which every object is found."""
    falling = torch.tensor([1, 1, 1, 0, 1, 0, 0, 1, 0, 0, 0, 0]).bool()  # the interpolation changes nothing here
    scores = torch.arange(12, 0, -1.0)
    precision = falling.cumsum(0) / torch.arange(1, 13)
    assert (precision[falling].diff() <= 0).all()
    theirs = metrics.average_precision_score(falling, scores)
    assert average_precision(scores, falling, 5) == pytest.approx(theirs, rel=1e-12)
    for _ in range(20):
        scores = (20 * torch.rand(60, generator=generator)).round()  # with ties
        correct = torch.rand(60, generator=generator) < 0.5
        positives = int(correct.sum())
        theirs = metrics.average_precision_score(correct, scores)
        mine = average_precision(scores, correct, positives)
        assert mine >= theirs - 1e-12
        precision, recall, _ = metrics.precision_recall_curve(correct, scores)  # recall falls from 1 to 0
        interpolated = torch.tensor(precision.copy()).cummax(0).values
        area = (interpolated[:-1] * -torch.tensor(recall.copy()).diff()).sum().item()
        assert mine == pytest.approx(area, rel=1e-12)


def test_extremes():
    yes, no = torch.ones(4, dtype=torch.bool), torch.zeros(4, dtype=torch.bool)
    scores = torch.rand(4)
    for points in (None, 11):
        assert average_precision(scores, yes, 4, points) == 1
        assert average_precision(scores, no, 4, points) == 0
        assert average_precision(scores[:0], no[:0], 4, points) == 0
    assert average_precision(scores, yes, 8) == 0.5
    assert average_precision(scores, yes, 8, points=11) == pytest.approx(6 / 11)  # 0, .1, ..., .5


def test_every_eleventh_recall_is_reached_exactly():
    """In floating point 3 / 10 may miss 0.3; k / 10 for every k must not."""
    for k in range(1, 11):
        value = average_precision(torch.rand(k), torch.ones(k, dtype=torch.bool), 10, points=11)
        assert value == pytest.approx((k + 1) / 11, rel=1e-12)


def test_ties_enter_together():
    scores, correct = torch.ones(4), torch.tensor([True, False, False, True])
    assert average_precision(scores, correct, 2) == 0.5
    assert average_precision(scores, correct.flip(0), 2) == 0.5


def test_average_precision_refuses():
    with refuses(ValueError, "positives must be at least 1 and at least the 4 correct detections, got 3"):
        average_precision(SCORES, CORRECT, 3)
    with refuses(ValueError, "positives must be at least 1"):
        average_precision(SCORES[:0], CORRECT[:0], 0)
    with refuses(ValueError, "points must be at least 2 or None, got 1"):
        average_precision(SCORES, CORRECT, 5, points=1)
    with refuses(ValueError, "one shape \\(n,\\), got \\(7,\\) and \\(6,\\)"):
        average_precision(SCORES, CORRECT[:6], 5)
    with refuses(ValueError, "got NaN"):
        average_precision(SCORES / 0 * 0, CORRECT, 5)
    with refuses(ValueError, r"shapes \(k, 4\), \(k,\), \(k,\), got"):
        Detections(torch.zeros(3, 4), torch.zeros(2), torch.zeros(3, dtype=torch.int64))


BOX = torch.tensor([[0.0, 0, 10, 10], [20, 20, 30, 30]])


def detections(moved, scores, labels):
    """The first box moved to the right by this much."""
    shift = torch.tensor([[float(m), 0, float(m), 0] for m in moved])
    return Detections(BOX[:1] + shift, torch.tensor(scores), torch.tensor(labels))


def test_judge_counts_an_object_once_for_the_best_score():
    found = detections([1, 0, 2], [0.7, 0.9, 0.8], [3, 3, 3])
    assert ap.judge(found, (BOX, torch.tensor([3, 3]))).tolist() == [False, True, False]
    assert ap.judge(found, (BOX, torch.tensor([4, 3]))).tolist() == [False, False, False]
    third = detections([5], [0.9], [3])  # IoU 50 / 150
    assert ap.judge(third, (BOX, torch.tensor([3, 3])), 1 / 3).tolist() == [True]
    assert ap.judge(third, (BOX, torch.tensor([3, 3])), 0.34).tolist() == [False]
    half = Detections(torch.tensor([[0.0, 0, 10, 5]]), torch.ones(1), torch.tensor([3]))  # IoU 1/2, exactly
    assert ap.judge(half, (BOX, torch.tensor([3, 3])), 0.5).tolist() == [True]
    with refuses(ValueError, "threshold must be in \\(0, 1\\], got 0"):
        ap.judge(third, (BOX, torch.tensor([3, 3])), 0)


def test_judge_does_not_pass_a_detection_on_to_its_second_best_object():
    """PASCAL VOC's rule; COCO would give the second detection the free object."""
    close = torch.tensor([[0.0, 0, 10, 10], [2, 0, 12, 10]])
    found = detections([0, 0.5], [0.9, 0.8], [1, 1])
    assert ap.judge(found, (close, torch.tensor([1, 1]))).tolist() == [True, False]


def test_suppress_drops_low_scores_and_what_a_better_box_of_the_class_overlaps():
    boxes = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 5], [20, 0, 30, 10]])  # IoU 1/2 of the first two
    scores = torch.tensor([[0.5, 0.1], [0.9, 0.2], [0.0, 0.7]])
    found = ap.suppress(boxes, scores, lowest=0.1, overlap=0.4)
    assert found.labels.tolist() == [0, 1, 1]
    assert found.scores.tolist() == pytest.approx([0.9, 0.7, 0.2])
    assert torch.equal(found.boxes, boxes[[1, 2, 1]])
    assert len(ap.suppress(boxes, scores, lowest=0.1, overlap=0.5)) == 5
    assert len(ap.suppress(boxes, scores, lowest=1.0, overlap=0.5)) == 0


def test_mean_average_precision_by_hand(device):
    images = [detections([0, 1], [0.9, 0.8], [0, 1]), detections([0], [0.95], [0])]
    images.append(Detections(BOX[:0], torch.zeros(0), torch.zeros(0, dtype=torch.int64)))
    truths = [(BOX, torch.tensor([0, 1])), (BOX[:1], torch.tensor([2])), (BOX[:1], torch.tensor([0]))]
    # class 0: the error ranks first, then one of two objects: precision 1/2 at recall 1/2
    # class 1: the detection overlaps the other object: 0; class 2: nothing found; class 3 does not occur
    images = [Detections(x.boxes.to(device), x.scores.to(device), x.labels.to(device)) for x in images]
    assert ap.mean_average_precision(images, truths, 4) == pytest.approx((0.25 + 0 + 0) / 3)
    perfect = [Detections(b, torch.ones(len(b)), k) for b, k in truths]
    assert ap.mean_average_precision(perfect, truths, 4) == 1
    with refuses(ValueError, "truths must be one for each of the 3 images, got 2"):
        ap.mean_average_precision(images, truths[:2], 4)
    with refuses(ValueError, "classes 0 to 1, got counts"):
        ap.mean_average_precision(images, truths, 2)
    with refuses(ValueError, "got no image"):
        ap.mean_average_precision([], [], 2)


def test_bootstrap_draws_images_and_is_paired_by_the_seed():
    hit = detections([0], [0.9], [0])
    miss = detections([9], [0.9], [0])
    images, truths = [hit, miss] * 50, [(BOX[:1], torch.tensor([0]))] * 100
    draws = ap.bootstrap(images, truths, 1, repeats=400, seed=0)
    # all scores are equal, so the AP is (share of hits)^2: precision times recall
    shares = draws.sqrt()
    assert draws.shape == (400,)
    assert shares.mean().item() == pytest.approx(0.5, abs=4 * 0.05 / 20)
    assert shares.std().item() == pytest.approx(0.05, rel=0.15)  # binomial; its standard error is 3.5 %
    other = ap.bootstrap(images[::-1], truths, 1, repeats=400, seed=0)
    assert torch.allclose(other.sqrt() + shares, torch.ones(400))  # the same draws
    assert torch.equal(ap.bootstrap(images, truths, 1, 7, seed=0), draws[:7])


def test_bootstrap_is_the_score_of_the_drawn_images(generator):
    truths, images = [], []
    for _ in range(12):  # class 3 is never found, class 4 has no object
        truths.append((BOX, torch.randint(4, (2,), generator=generator)))
        boxes = BOX.repeat(2, 1) + torch.randn(4, 4, generator=generator)
        scores = torch.randint(5, (4,), generator=generator) / 4  # ties, also between images
        images.append(Detections(boxes, scores, torch.randint(3, (4,), generator=generator)))
    draws = torch.randint(12, (30, 12), generator=torch.Generator().manual_seed(5)).tolist()
    direct = [ap.mean_average_precision([images[i] for i in d], [truths[i] for i in d], 5) for d in draws]
    torch.testing.assert_close(ap.bootstrap(images, truths, 5, 30, seed=5), torch.tensor(direct))
    with refuses(ValueError, "got a draw with none"):
        ap.bootstrap(images[:2], [truths[0], (BOX[:0], torch.zeros(0).long())], 5, 30, seed=5)
