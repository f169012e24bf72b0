import math

import pytest
import torch

from deepstat.vision import boxes
from helpers import refuses

X, Y = torch.tensor([[0.0, 0, 2, 2]]), torch.tensor([[1.0, 1, 3, 3]])


def draw(n, generator, spread=100.0):
    corner = spread * torch.rand(n, 2, generator=generator)
    return torch.cat([corner, corner + 5 + 30 * torch.rand(n, 2, generator=generator)], dim=1)


def plain_iou(a, b):
    """By the lengths of intervals, in Python's numbers."""
    width, height = (max(0, min(a[k + 2], b[k + 2]) - max(a[k], b[k])) for k in (0, 1))
    sizes = [(box[2] - box[0]) * (box[3] - box[1]) for box in (a, b)]
    return width * height / (sum(sizes) - width * height)


def test_area():
    given = torch.tensor([[1.0, 2, 4, 8], [0, 0, 0, 5], [3, 0, 1, 5], [3, 5, 1, 0]])
    assert boxes.area(given).tolist() == [18, 0, 0, 0]
    assert boxes.area(given.reshape(2, 2, 4)).shape == (2, 2)
    with refuses(TypeError, "boxes must be floating point numbers, got torch.int64"):
        boxes.area(given.long())
    with refuses(ValueError, "last axis of 4.*got shape \\(4, 3\\)"):
        boxes.area(given[:, :3])


def test_iou_of_two_squares_that_share_a_quarter(device):
    assert boxes.iou(X.to(device), Y.to(device)).item() == pytest.approx(1 / 7, rel=1e-6)
    assert boxes.iou(X, X).item() == 1


def test_iou_against_plain_python_and_against_counted_pixels(generator):
    a = draw(30, generator).round()
    b = draw(40, generator).round()
    found = boxes.iou(a.double(), b.double())
    plain = torch.tensor([[plain_iou(p, q) for q in b.tolist()] for p in a.tolist()], dtype=torch.float64)
    torch.testing.assert_close(found, plain)
    x = torch.arange(140) + 0.5  # centres of pixels
    in_a, in_b = (
        (
            ((x > s[:, None, 0, None]) & (x < s[:, None, 2, None])).transpose(1, 2)
            & ((x > s[:, None, 1, None]) & (x < s[:, None, 3, None]))
        ).flatten(1).double()
        for s in (a, b)
    )
    both = in_a @ in_b.T
    torch.testing.assert_close(found, both / (in_a.sum(1)[:, None] + in_b.sum(1) - both))
    torch.testing.assert_close(found, boxes.iou(b.double(), a.double()).T)


def test_boxes_that_only_touch_or_are_empty_have_iou_0():
    beside = torch.tensor([[2.0, 0, 4, 2], [5, 5, 6, 6], [1, 1, 1, 1], [2, 2, 0, 0]])
    assert boxes.iou(X, beside).tolist() == [[0, 0, 0, 0]]
    assert boxes.iou(beside[2:], beside[2:]).tolist() == [[0, 0], [0, 0]]
    assert boxes.iou(X[:0], beside).shape == (0, 4)


def test_giou_by_its_definition(generator):
    assert boxes.giou(X, Y).item() == pytest.approx(1 / 7 - 2 / 9, rel=1e-5)  # hull 9, union 7
    assert boxes.giou(X, X).item() == 1
    a, b = draw(20, generator).double(), draw(25, generator).double()
    for i, p in enumerate(a.tolist()):
        for j, q in enumerate(b.tolist()):
            hull = (max(p[2], q[2]) - min(p[0], q[0])) * (max(p[3], q[3]) - min(p[1], q[1]))
            sizes = [(box[2] - box[0]) * (box[3] - box[1]) for box in (p, q)]
            overlap = plain_iou(p, q)
            union = sum(sizes) / (1 + overlap)
            value = boxes.giou(a[i : i + 1], b[j : j + 1]).item()
            assert value == pytest.approx(overlap - (hull - union) / hull, abs=1e-12)
            assert -1 < value <= overlap
    point = torch.ones(1, 4)
    assert boxes.giou(point, point).item() == 0


def test_giou_pulls_boxes_that_do_not_meet_together_and_iou_does_not():
    far = torch.tensor([[5.0, 0, 7, 2]], requires_grad=True)
    (gradient,) = torch.autograd.grad(boxes.giou(X, far).sum(), far)
    assert gradient[0, 0] + gradient[0, 2] < 0  # to the right is worse
    (flat,) = torch.autograd.grad(boxes.iou(X, far).sum(), far)
    assert (flat == 0).all()


@pytest.mark.parametrize("function", [boxes.iou, boxes.giou])
def test_half_precision_does_not_overflow(function, device):
    a = torch.tensor([[0.0, 0, 600, 600]], dtype=torch.float16, device=device)  # area 360,000 > 65,504
    assert function(a, a).item() == 1
    assert function(a, a).dtype == torch.float16
    with refuses(ValueError, "b must have shape \\(n, 4\\), got \\(4,\\)"):
        function(a, a[0])


def test_encode_by_its_definition():
    anchor = torch.tensor([[10.0, 20, 30, 60]])  # centre (20, 40), 20 x 40
    box = torch.tensor([[15.0, 30, 55, 40]])  # centre (35, 35), 40 x 10
    expected = torch.tensor([[15 / 20, -5 / 40, math.log(2), math.log(1 / 4)]])
    torch.testing.assert_close(boxes.encode(box, anchor), expected)


def test_decode_is_the_inverse_of_encode_and_broadcasts(generator):
    a, b = draw(50, generator).double(), draw(50, generator).double()
    torch.testing.assert_close(boxes.decode(boxes.encode(b, a), a), b)
    many = torch.stack([b, a])  # (2, 50, 4)
    torch.testing.assert_close(boxes.decode(boxes.encode(many, a), a), many)
    torch.testing.assert_close(boxes.decode(torch.zeros_like(a), a), a)


def test_decode_gives_no_infinite_box():
    code = torch.tensor([[0.0, 0, 100, 100]])
    found = boxes.decode(code, X)
    assert found.isfinite().all()
    assert (found[0, 2] - found[0, 0]).item() == pytest.approx(2 * 62.5, rel=1e-5)
    with refuses(ValueError, "codes must have a last axis of 4"):
        boxes.decode(code[:, :2], X)


def test_clip():
    given = torch.tensor([[-5.0, -6, 70, 90], [10, 20, 30, 40], [70, 70, 80, 80]])
    expected = [[0, 0, 64, 48], [10, 20, 30, 40], [64, 48, 64, 48]]
    assert boxes.clip(given, height=48, width=64).tolist() == expected


def brute_force(given, scores, threshold):
    left = sorted(range(len(given)), key=lambda i: -scores[i])
    kept = []
    while left:
        kept.append(left.pop(0))
        left = [i for i in left if plain_iou(given[kept[-1]], given[i]) <= threshold]
    return kept


@pytest.mark.slow
@pytest.mark.parametrize("threshold", [0.0, 0.3, 0.5, 0.9, 1.0])
@pytest.mark.parametrize("n", [0, 1, 40, 700])  # 700 are three blocks
def test_nms_is_the_brute_force_reference(n, threshold, generator, device):
    given = draw(n, generator).double()
    scores = (100 * torch.rand(n, generator=generator)).round().double()  # with ties
    kept = boxes.nms(given.to(device), scores.to(device), threshold)
    assert kept.tolist() == brute_force(given.tolist(), scores.tolist(), threshold)


def test_nms_is_greedy_not_transitive():
    chain = torch.tensor([[0.0, 0, 10, 10], [4, 0, 14, 10], [8, 0, 18, 10]])  # only neighbours overlap enough
    assert boxes.nms(chain, torch.tensor([0.9, 0.8, 0.7]), 0.3).tolist() == [0, 2]
    assert boxes.nms(chain, torch.tensor([0.8, 0.9, 0.7]), 0.3).tolist() == [1]
    third = boxes.iou(X, torch.tensor([[1.0, 0, 3, 2]])).item()  # exactly at the threshold: kept
    assert boxes.nms(torch.tensor([[0.0, 0, 2, 2], [1, 0, 3, 2]]), torch.tensor([1.0, 0.5]), third).tolist() == [0, 1]


@pytest.mark.slow
@pytest.mark.parametrize("spread", [100.0, 1000.0])  # 9 % and 80 % of the boxes are kept
def test_nms_is_fast_on_10_000_boxes(spread, generator):
    import time

    given, scores = draw(10_000, generator, spread), torch.rand(10_000, generator=generator)
    before = time.process_time()
    kept = boxes.nms(given, scores, 0.5)
    assert time.process_time() - before < 10  # about one second; a loop over all pairs in Python takes a minute
    assert (boxes.iou(kept_boxes := given[kept], kept_boxes).fill_diagonal_(0) <= 0.5).all()


def test_nms_of_each_class_alone(generator):
    given, scores = draw(300, generator), torch.rand(300, generator=generator)
    labels = torch.randint(0, 4, (300,), generator=generator)
    kept = boxes.batched_nms(given, scores, labels, 0.4)
    shifted = given + 1000 * labels[:, None]  # another route: move the classes apart
    assert kept.tolist() == boxes.nms(shifted, scores, 0.4).tolist()
    assert boxes.batched_nms(given[:0], scores[:0], labels[:0], 0.4).shape == (0,)
    same = boxes.batched_nms(given, scores, torch.zeros_like(labels), 0.4)
    assert same.tolist() == boxes.nms(given, scores, 0.4).tolist()
    tied = boxes.batched_nms(given[[0, 0]], torch.ones(2), torch.tensor([1, 0]), 0.4)
    assert tied.tolist() == [0, 1]


def test_nms_refuses_what_it_cannot_rank():
    good, scores = torch.cat([X, Y]), torch.tensor([0.5, 0.6])
    with refuses(ValueError, "scores must have shape \\(2,\\), one a box, got \\(1,\\)"):
        boxes.nms(good, scores[:1], 0.5)
    with refuses(ValueError, "threshold must be in \\[0, 1\\], got 50"):
        boxes.nms(good, scores, 50)
    with refuses(ValueError, "must be finite"):
        boxes.nms(good, torch.tensor([0.5, float("nan")]), 0.5)
    with refuses(ValueError, "must be finite"):
        boxes.nms(good / 0, scores, 0.5)
    with refuses(ValueError, "labels must have shape \\(2,\\)"):
        boxes.batched_nms(good, scores, torch.tensor([0]), 0.5)
