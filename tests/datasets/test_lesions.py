import numpy as np
import pytest
import torch
from scipy import stats

from deepstat.datasets import lesions
from helpers import refuses


def test_shapes_types_and_subjects():
    sample = lesions.lesions(subjects=7, images=3, size=12)
    assert sample.x.shape == (21, 3, 12, 12)
    assert (sample.x.dtype, sample.y.dtype, sample.subject.dtype) == (torch.float32, torch.int64, torch.int64)
    assert 0 <= sample.x.min() < sample.x.max() <= 1
    assert sample.subject.tolist() == [k for k in range(7) for _ in range(3)]
    assert torch.equal(sample.y, sample.subject % 2)
    assert repr(sample) == "Lesions(x: (21, 3, 12, 12), 7 subjects, simulated)"


def test_the_seed_decides():
    first, again, other = (lesions.lesions(4, 2, seed=seed).x for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    state = torch.get_rng_state()
    lesions.lesions(4, 2)
    assert torch.equal(torch.get_rng_state(), state)


def test_images_of_a_subject_are_alike_and_those_of_others_are_not():
    x = lesions.lesions(60, 4, seed=3).x.mean((2, 3)).reshape(60, 4, 3)
    within, between = x.var(1).mean(), x.mean(1).var(0).mean()
    assert within < 0.1 * between


@pytest.mark.parametrize("turn", [lambda x: x.flip(3), lambda x: x.flip(2), lambda x: torch.rot90(x, 1, (2, 3))])
def test_direction_has_no_meaning(turn):
    """Means of the four quarters, and of their squares, before and after: no paired difference, jointly with y."""
    sample = lesions.lesions(1500, 1, size=12, seed=4)

    def quarters(x):
        cells = x.mean(1).unfold(1, 6, 6).unfold(2, 6, 6).flatten(3).mean(3).flatten(1)  # (n, 4)
        return torch.cat([cells, cells**2, cells * sample.y[:, None]], 1)

    change = (quarters(turn(sample.x)) - quarters(sample.x)).numpy()
    assert stats.ttest_1samp(change, 0).pvalue.min() > 0.05 / 12 / 20


def test_the_camera_turns_by_any_angle_from_image_to_image():
    """Directions of irregular lesions, by a second moment: of 50 uniform ones the mean has length 0.13, of equal ones 1."""
    sample = lesions.lesions(40, 50, effect=2.0, seed=7)
    side = torch.linspace(-1, 1, 24)
    z = torch.complex(side.expand(24, 24), side[:, None].expand(24, 24))
    dark = (1 - sample.x.mean(1)).view(40, 50, 24, 24)[1::2] * (z.abs() < 0.9)
    moment = (dark * z**2).sum((2, 3))  # of the 20 malignant subjects' images
    assert (moment / moment.abs()).mean(1).abs().mean() < 0.25


def test_classes_differ_with_an_effect_and_not_without():
    means = {}
    for effect in (0.0, 1.0, 2.0):
        sample = lesions.lesions(800, 1, effect=effect, seed=5)
        side = torch.linspace(-1, 1, 24)
        disc = side.square()[:, None] + side.square() < 0.4**2
        inner = sample.x.mean(1)[:, disc]  # (n, pixels): mostly lesion, mottled by spots and cut by the border
        spread = (inner.std(1) / inner.mean(1)).log().numpy()
        means[effect] = stats.ttest_ind(spread[1::2], spread[::2])
    assert means[0.0].pvalue > 0.001
    assert means[1.0].pvalue < 1e-4
    assert abs(means[2.0].statistic) > abs(means[1.0].statistic)


def test_there_is_a_lesion_in_the_middle_darker_than_the_skin():
    x = lesions.lesions(100, 1, seed=6).x.mean(1)
    corners = torch.stack([x[:, :3, :3], x[:, :3, -3:], x[:, -3:, :3], x[:, -3:, -3:]]).mean((0, 2, 3))
    assert np.mean((x[:, 10:14, 10:14].mean((1, 2)) < corners).numpy()) > 0.9


@pytest.mark.parametrize("arguments", [{"subjects": 0}, {"images": 0}, {"size": 7}, {"seed": -1}])
def test_numbers_out_of_range_are_refused(arguments):
    with refuses(ValueError, f"{next(iter(arguments))} must be at least"):
        lesions.lesions(**arguments)
