import math

import pytest
import torch

from deepstat.datasets import directions


def test_periwinkles_are_the_published_ones():
    snails = directions.periwinkles()
    assert snails.x.shape == (31, 1)
    assert snails.y.shape == (31,)
    assert (snails.x.dtype, snails.y.dtype) == (torch.float32, torch.float32)
    assert snails.x.sum() == 1477
    degrees = torch.rad2deg(snails.y) % 360
    assert degrees.sum().item() == pytest.approx(3019, abs=1e-3)
    assert (snails.x[0, 0].item(), round(degrees[0].item())) == (107, 67)
    assert (snails.x[-2, 0].item(), round(degrees[-2].item())) == (21, 200)
    assert (snails.x[15, 0].item(), round(degrees[15].item())) == (38, 123)
    assert all([snails.source, snails.licence])


def test_angles_are_from_minus_pi_to_pi():
    y = directions.periwinkles().y
    assert y.abs().max() <= math.pi
    assert (y < 0).sum() == 2  # 197 and 200 degrees
