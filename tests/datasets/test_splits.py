import numpy as np
import pytest
import torch

from deepstat.datasets import splits
from helpers import refuses


@pytest.mark.parametrize("n", [2, 3, 10, 101])
@pytest.mark.parametrize("fraction", [0.01, 0.3, 0.5, 0.99])
def test_a_split_holds_every_row_once(n, fraction):
    train, test = splits.train_test(n, fraction, seed=0)
    assert torch.equal(torch.cat([train, test]).sort().values, torch.arange(n))
    assert len(test) == min(max(round(fraction * n), 1), n - 1)
    assert torch.equal(train, train.sort().values)
    assert torch.equal(test, test.sort().values)


def test_the_seed_alone_decides():
    torch.manual_seed(1)
    first = splits.train_test(100, 0.2, seed=5)
    torch.manual_seed(2)
    state = torch.get_rng_state()
    second = splits.train_test(100, 0.2, seed=5)
    assert torch.equal(first[1], second[1])
    assert torch.equal(torch.get_rng_state(), state)
    assert not torch.equal(first[1], splits.train_test(100, 0.2, seed=6)[1])


def test_every_row_is_tested_on_equally_often():
    repeats = 4000
    counts = torch.zeros(10)
    for _, test in splits.repeated_splits(10, 0.3, repeats, seed=0):
        counts[test] += 1
    standard_error = (0.3 * 0.7 / repeats) ** 0.5
    assert (counts / repeats - 0.3).abs().max() < 4 * standard_error


@pytest.mark.parametrize("labels", [[0] * 50 + [1] * 30 + [2] * 20, [7.5] * 60 + [-1.0] * 40])
def test_a_stratified_split_takes_the_fraction_of_every_class(labels):
    labels = torch.tensor(labels)[torch.randperm(100, generator=torch.Generator().manual_seed(0))]
    train, test = splits.train_test(100, 0.2, seed=0, stratify=labels)
    for label in labels.unique():
        assert (labels[test] == label).sum() == round(0.2 * (labels == label).sum().item())
    assert torch.equal(torch.cat([train, test]).sort().values, torch.arange(100))


@pytest.mark.parametrize("fraction", [0.001, 0.999])
def test_every_class_is_in_both_sets(fraction):
    labels = torch.tensor([0, 0, 1, 1, 1])
    for rows in splits.train_test(5, fraction, seed=0, stratify=labels):
        assert set(labels[rows].tolist()) == {0, 1}


def test_the_labels_may_be_on_the_device(device):
    labels = torch.tensor([0, 1] * 10)
    here, there = (splits.train_test(20, 0.5, seed=0, stratify=y) for y in (labels, labels.to(device)))
    assert torch.equal(here[0], there[0])


@pytest.mark.parametrize("labels", [None, torch.tensor([0, 1] * 10)])
def test_more_repeats_leave_the_first_ones_as_they_were(labels):
    three = splits.repeated_splits(20, 0.3, 3, seed=0, stratify=labels)
    five = splits.repeated_splits(20, 0.3, 5, seed=0, stratify=labels)
    for a, b in zip(three, five[:3], strict=True):
        assert torch.equal(a[1], b[1])
    assert torch.equal(three[0][1], splits.train_test(20, 0.3, seed=0, stratify=labels)[1])
    assert not torch.equal(five[0][1], five[1][1])


@pytest.mark.parametrize(
    ("changes", "exception", "message"),
    [
        ({"n": 1}, ValueError, "n must be at least 2, got 1"),
        ({"n": 4.0}, TypeError, "n must be an integer, got float"),
        ({"repeats": 0}, ValueError, "repeats must be at least 1, got 0"),
        ({"seed": -1}, ValueError, "seed must be at least 0, got -1"),
        ({"seed": None}, TypeError, "seed must be an integer, got NoneType"),
        ({"test_fraction": 0.0}, ValueError, "test_fraction must be between 0 and 1, got 0.0"),
        ({"test_fraction": 1.0}, ValueError, "test_fraction must be between 0 and 1, got 1.0"),
        ({"test_fraction": 20}, ValueError, "test_fraction must be between 0 and 1, got 20"),
        ({"test_fraction": float("nan")}, ValueError, "test_fraction must be between 0 and 1, got nan"),
        ({"stratify": torch.tensor([0, 0, 1, 2])}, ValueError, "at least two rows of every class, got one of class 1"),
        ({"stratify": torch.zeros(5)}, ValueError, r"stratify must have shape \(4,\), .* got \(5,\)"),
        ({"stratify": torch.zeros(4, 1)}, ValueError, r"stratify must have shape \(4,\), .* got \(4, 1\)"),
        ({"stratify": [0, 0, 1, 1]}, TypeError, "stratify must be a tensor of labels, got list"),
    ],
)
def test_bad_input_is_refused(changes, exception, message):
    with refuses(exception, message):
        splits.repeated_splits(**({"n": 4, "test_fraction": 0.5, "repeats": 1, "seed": 0} | changes))


def test_the_paired_interval_is_the_corrected_t_interval():
    difference = np.array([0.1, 0.3, -0.2, 0.4])
    low, high = splits.paired_interval(difference, 0.2)
    mean, s2 = 0.15, 0.07  # by hand: squares .0025, .0225, .1225, .0625 sum to .21; / 3
    half = 3.182446 * (s2 * (1 / 4 + 0.2 / 0.8)) ** 0.5  # t table, 3 degrees of freedom
    assert (low + high) / 2 == pytest.approx(mean)
    assert (high - low) / 2 == pytest.approx(half, rel=1e-6)
    assert splits.paired_interval(torch.tensor(difference), 0.2) == pytest.approx((low, high))
    narrow = splits.paired_interval(difference, 0.2, level=0.5)
    assert low < narrow[0] < narrow[1] < high


def test_the_paired_interval_covers_where_the_usual_one_does_not():
    """Means of overlapping halves of one sample: the usual interval is far too short."""
    rng = np.random.default_rng(0)
    cover, usual = 0, 0
    for trial in range(300):
        sample = rng.normal(size=60)
        means = np.array([sample[test].mean() for _, test in splits.repeated_splits(60, 0.5, 10, trial)])
        low, high = splits.paired_interval(means, 0.5)
        cover += low < 0 < high
        low, high = splits.paired_interval(means, 1e-9)
        usual += low < 0 < high
    assert cover >= 0.9 * 300
    assert usual < 0.8 * 300


def test_the_paired_interval_refuses_what_it_cannot_use():
    with refuses(ValueError, "at least two"):
        splits.paired_interval([1.0], 0.3)
    with refuses(ValueError, "one number a split"):
        splits.paired_interval(np.ones((2, 2)), 0.3)
    with refuses(ValueError, "finite"):
        splits.paired_interval([1.0, float("nan")], 0.3)
    with refuses(ValueError, "test_share"):
        splits.paired_interval([1.0, 2.0], 30)
    with refuses(ValueError, "level"):
        splits.paired_interval([1.0, 2.0], 0.3, level=95)


def test_the_crossed_interval_adds_the_variances_of_both_means():
    difference = np.array([[1.0, 2, 6], [3, 4, 8]])  # means of rows 3, 5 and of columns 2, 3, 7
    low, high = splits.crossed_interval(difference)
    half = 12.706205 * (2 / 2 + 7 / 3) ** 0.5  # t table, 1 degree of freedom; variances 2 and 7
    assert (low, high) == pytest.approx((4 - half, 4 + half), rel=1e-6)
    assert splits.crossed_interval(torch.tensor(difference)) == pytest.approx((low, high))
    narrow = splits.crossed_interval(difference, level=0.5)
    assert low < narrow[0] < narrow[1] < high


@pytest.mark.parametrize(("a", "b", "e"), [(1.0, 0.0, 0.0), (0.0, 3.0, 0.3), (0.2, 1.0, 5.0)])
def test_the_crossed_interval_covers_where_either_half_of_it_may_not(a, b, e):
    """Standard deviations of sets, test rows and the rest: sets alone, test rows nearly alone, mostly the rest."""
    rng = np.random.default_rng(0)
    rows = rng.normal(scale=a, size=(1000, 6, 1)) + rng.normal(scale=b, size=(1000, 1, 40))
    draws = rows + rng.normal(scale=e, size=(1000, 6, 40))
    ends = np.array([splits.crossed_interval(draw) for draw in draws])
    cover = ((ends[:, 0] < 0) & (ends[:, 1] > 0)).mean()
    assert cover > 0.95 - 5 * (0.05 * 0.95 / 1000) ** 0.5  # five standard errors
    variance = (((ends[:, 1] - ends[:, 0]) / 2 / 2.570582) ** 2).mean()  # t table, 5 degrees of freedom
    expected = a**2 / 6 + b**2 / 40 + 2 * e**2 / 240  # the last term twice
    assert variance == pytest.approx(expected, rel=5 * (2 / 5 / 1000) ** 0.5)  # five standard errors at most


def test_the_crossed_interval_refuses_what_it_cannot_use():
    for shape in ((6,), (1, 9), (9, 1), (2, 3, 4)):
        with refuses(ValueError, r"shape \(sets, test rows\), both at least 2"):
            splits.crossed_interval(np.ones(shape))
    with refuses(ValueError, "finite"):
        splits.crossed_interval(np.array([[1.0, float("inf")], [0.0, 1.0]]))
    with refuses(ValueError, "level"):
        splits.crossed_interval(np.ones((2, 2)), level=95)
