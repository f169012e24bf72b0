import pytest
import torch
from torch import nn

from deepstat.vision.scene_training import minimize
from helpers import refuses


def regression(seed, steps=200):
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(50, 3, generator=generator)
    y = x @ torch.tensor([1.0, -2.0, 0.5])
    torch.manual_seed(0)
    model = nn.Linear(3, 1)
    seen = []

    def loss(rows):
        seen.append(rows)
        where = model.weight.device
        return (model(x[rows].to(where))[:, 0] - y[rows].to(where)).square().mean()

    value = minimize(model, loss, 50, steps=steps, batch=10, learning_rate=0.1, seed=seed)
    return model, value, seen


def test_it_finds_the_least_squares_solution():
    model, value, _ = regression(0)
    expected = torch.tensor([[1.0, -2.0, 0.5]])
    torch.testing.assert_close(model.weight.cpu(), expected, rtol=0, atol=0.04)  # weight decay pulls it by some 0.02
    assert value > 0
    assert not model.training


def test_the_number_of_steps_and_that_all_rows_are_dealt():
    _, _, seen = regression(0, steps=12)
    assert [len(rows) for rows in seen] == [10] * 12
    counts = torch.bincount(torch.cat(seen), minlength=50)
    assert counts.min() == 2
    assert counts.max() == 3


def test_a_seed_gives_one_result_and_global_random_numbers_stay():
    before = torch.random.get_rng_state()
    first, second, third = (regression(seed, 20)[0].weight for seed in (0, 0, 1))
    assert (first == second).all()
    assert (first != third).any()
    torch.manual_seed(0)
    nn.Linear(3, 1)
    expected = torch.random.get_rng_state()
    torch.random.set_rng_state(before)
    regression(0, 3)
    assert (torch.random.get_rng_state() == expected).all()


def test_frozen_parameters_stay():
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 1))
    model[0].requires_grad_(False)
    before = model[0].weight.clone()
    x = torch.ones(4, 2)

    def loss(rows):
        return model(x[rows].to(model[0].weight.device)).square().mean()

    minimize(model, loss, 4, steps=3, batch=2, learning_rate=0.1, seed=0)
    assert (model[0].weight.cpu() == before).all()


@pytest.mark.parametrize("name", ["rows", "steps", "batch"])
def test_what_is_refused(name):
    settings = {"rows": 4, "steps": 2, "batch": 2, "learning_rate": 0.1, "seed": 0, name: 0}
    with refuses(ValueError, name):
        minimize(nn.Linear(1, 1), lambda rows: rows.sum(), **settings)
