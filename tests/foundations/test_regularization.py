import math

import jaxtyping
import numpy as np
import pytest
import torch
from scipy import optimize
from sklearn import linear_model
from torch import nn
from torch.nn import functional

from deepstat.datasets import tabular
from deepstat.foundations import regularization
from deepstat.foundations.mlp import MLP
from deepstat.foundations.regularization import Dropout, Ensemble
from helpers import refuses


@pytest.fixture
def problem():
    """The diabetes data, standardized: covariates, response, eigenvalues and axes of the Gram matrix."""
    table = tabular.diabetes()
    x, y = table.x.double(), table.y.double()
    x, y = (x - x.mean(0)) / x.std(0), (y - y.mean()) / y.std()
    return x, y, *torch.linalg.eigh(x.T @ x / len(x))


def test_penalties_are_sums_over_all_tensors(device):
    parameters = [torch.tensor([[3.0, -4.0]], device=device), torch.tensor([-2.0], device=device)]
    assert regularization.l2_penalty(parameters).item() == 14.5
    assert regularization.l1_penalty(parameters).item() == 9
    assert regularization.elastic_net_penalty(parameters, 0.2).item() == pytest.approx(0.2 * 9 + 0.8 * 14.5)
    assert regularization.elastic_net_penalty(parameters).item() == pytest.approx(11.75)
    assert regularization.elastic_net_penalty(iter(parameters), 1.0).item() == 9
    vector = nn.utils.parameters_to_vector(parameters)
    assert regularization.l2_penalty(p for p in parameters).item() == pytest.approx(vector.norm().item() ** 2 / 2)


def test_penalties_refuse_what_only_looks_like_parameters():
    for penalty in (regularization.l2_penalty, regularization.l1_penalty, regularization.elastic_net_penalty):
        with refuses(TypeError, "several tensors.*got Tensor"):
            penalty(torch.ones(3))
        with refuses(TypeError, "several tensors.*got MLP"):
            penalty(MLP((2, 2)))
        with refuses(TypeError, "several tensors.*got list"):
            penalty([1.0, 2.0])
        with refuses(ValueError, "at least one tensor, got none"):
            penalty([])
    for share in (-0.1, 1.1, math.nan):
        with refuses(ValueError, f"share must be in .0, 1., got {share}"):
            regularization.elastic_net_penalty([torch.ones(1)], share)


def test_the_l2_gradient_is_the_parameter(generator):
    w = torch.randn(4, 3, generator=generator, requires_grad=True)
    (grad,) = torch.autograd.grad(regularization.l2_penalty([w]), w)
    torch.testing.assert_close(grad, w.detach())


def test_soft_threshold_minimizes_its_criterion(device):
    for x in (-2.0, -0.3, 0.0, 0.2, 1.5):
        best = optimize.minimize_scalar(lambda u, x=x: 0.5 * (u - x) ** 2 + 0.5 * abs(u), bounds=(-3, 3),
                                        method="bounded", options={"xatol": 1e-10})  # fmt: skip
        ours = regularization.soft_threshold(torch.tensor([x], dtype=torch.float64, device=device), 0.5)
        assert ours.item() == pytest.approx(best.x, abs=1e-6)
    z = torch.linspace(-2, 2, 41)
    torch.testing.assert_close(regularization.soft_threshold(z, 0.5), functional.softshrink(z, 0.5))
    assert regularization.soft_threshold(torch.tensor([0.5, -0.5, 0.1]), 0.5).tolist() == [0, 0, 0]
    assert regularization.soft_threshold(torch.tensor([math.nan]), 0.5).isnan().all()
    for threshold in (-1.0, math.nan):
        with refuses(ValueError, f"threshold must be at least 0, got {threshold}"):
            regularization.soft_threshold(z, threshold)


def test_proximal_gradient_finds_the_lasso_and_subgradients_do_not(problem):
    x, y, s, _ = problem
    gram, moment, rate = x.T @ x / len(x), x.T @ y / len(x), 0.2
    proximal, plain = torch.zeros(10).double(), torch.zeros(10).double()
    for _ in range(2000):
        proximal = regularization.soft_threshold(proximal - rate * (gram @ proximal - moment), rate * 0.05)
        plain = plain - rate * (gram @ plain - moment + 0.05 * plain.sign())
    lasso = linear_model.Lasso(alpha=0.05, fit_intercept=False, tol=1e-12).fit(x, y).coef_
    np.testing.assert_allclose(proximal, lasso, atol=1e-6)
    assert ((proximal == 0).numpy() == (lasso == 0)).all()
    assert (proximal == 0).any()
    assert not (plain == 0).any()


def test_dropout_is_pytorchs_in_law_and_in_its_modes(device, generator):
    x = torch.ones(200_000, device=device)
    torch.manual_seed(0)
    drop = Dropout(0.3).to(device)
    y = drop(x)
    theirs = functional.dropout(x, 0.3)
    assert y.unique().tolist() == pytest.approx([0, 1 / 0.7])
    torch.testing.assert_close(theirs.unique(), y.unique())
    for result in (y, theirs):  # five standard errors
        assert (result == 0).float().mean().item() == pytest.approx(0.3, abs=5 * math.sqrt(0.21 / 200_000))
        assert result.mean().item() == pytest.approx(1, abs=5 * math.sqrt(0.3 / 0.7 / 200_000))
    assert drop.eval()(x) is x
    assert Dropout(0.0)(x) is x
    half = drop.train()(x.to(torch.bfloat16))
    assert half.dtype == torch.bfloat16


def test_dropouts_own_generator_leaves_the_global_one_alone():
    x = torch.ones(50)
    state = torch.get_rng_state()
    first, second = (Dropout(0.5, torch.Generator().manual_seed(7))(x) for _ in range(2))
    assert torch.equal(first, second)
    assert torch.equal(torch.get_rng_state(), state)
    drop = Dropout(0.5, torch.Generator().manual_seed(7))
    assert not torch.equal(drop(x), drop(x))  # a fresh mask each time


def test_dropout_drops_entries_independently(generator):
    y = Dropout(0.4, generator)(torch.ones(40_000, 3))
    kept = (y > 0).double()
    correlation = torch.corrcoef(kept.T) - torch.eye(3)
    assert correlation.abs().max() < 5 / 200  # 5 standard errors


@pytest.mark.parametrize("p", [-0.1, 1.0, 2.0, math.nan])
def test_dropout_refuses_what_is_no_probability(p):
    with refuses(ValueError, f"p must be at least 0 and below 1, got {p}"):
        Dropout(p)


def test_dropouts_expected_loss_is_a_scaled_ridge_penalty(generator):
    """Exact: the mean over all masks of three columns, weighted by their probabilities, row by row."""
    x, w = torch.randn(3, generator=generator).double(), torch.randn(3, generator=generator).double()
    y, p, mean = 0.7, 0.2, 0.0
    for code in range(8):
        kept = torch.tensor([code >> j & 1 for j in range(3)])
        mask = kept.double()
        probability = (1 - p) ** kept.sum().item() * p ** (3 - kept.sum().item())
        mean += probability * (y - (mask * x / (1 - p)) @ w).item() ** 2
    assert mean == pytest.approx((y - x @ w).item() ** 2 + p / (1 - p) * (x**2 * w**2).sum().item())
    draws = Dropout(p, generator)(x.expand(100_000, 3)) @ w
    loss = (y - draws).square()
    assert loss.mean().item() == pytest.approx(mean, abs=5 * loss.std().item() / 100_000**0.5)


def test_an_ensemble_is_its_members(device):
    ensemble = Ensemble(3, (4, 6, 5, 2), "tanh").to(device)
    x, own = torch.randn(7, 4, device=device), torch.randn(3, 7, 4, device=device)
    shared, separate = ensemble(x), ensemble(own)
    assert shared.shape == separate.shape == (3, 7, 2)
    for r in range(3):
        member = MLP((4, 6, 5, 2), "tanh").to(device)
        for k, layer in enumerate(member.layers):
            layer.weight.data = ensemble.weight[k][r].T
            layer.bias.data = ensemble.bias[k][r, 0]
        torch.testing.assert_close(shared[r], member(x), atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(separate[r], member(own[r]), atol=1e-5, rtol=1e-4)


def test_an_ensemble_starts_as_linear_layers_do():
    torch.manual_seed(0)
    ensemble, layer = Ensemble(200, (16, 9, 1)), nn.Linear(16, 9)
    assert len(list(ensemble.parameters())) == 4
    for mine, theirs in ((ensemble.weight[0], layer.weight), (ensemble.bias[0], layer.bias)):
        assert mine.abs().max() <= 0.25
        assert mine.abs().max() > 0.249  # the bound 1/sqrt(16), which 200 members come close to
        assert theirs.abs().max() <= 0.25
        assert mine.var().item() == pytest.approx(0.25**2 / 3, rel=0.1)
    assert ensemble.weight[1].abs().max() <= 1 / 3 + 1e-6


def test_the_sum_of_losses_trains_every_member_as_if_alone():
    torch.manual_seed(0)
    x, y = torch.randn(3, 20, 4), torch.randn(3, 20)
    ensemble = Ensemble(3, (4, 5, 1))
    alone = MLP((4, 5, 1))
    for k, layer in enumerate(alone.layers):
        layer.weight.data = ensemble.weight[k][1].T.detach().clone()
        layer.bias.data = ensemble.bias[k][1, 0].detach().clone()
    adams = [torch.optim.Adam(model.parameters(), lr=0.05) for model in (ensemble, alone)]
    for _ in range(30):
        losses = ((ensemble(x)[..., 0] - y).square().mean(1), (alone(x[1])[:, 0] - y[1]).square().mean())
        for adam, loss in zip(adams, losses, strict=True):
            adam.zero_grad()
            loss.sum().backward()
            adam.step()
    torch.testing.assert_close(ensemble(x)[1], alone(x[1]), atol=1e-3, rtol=1e-3)


def test_an_ensemble_drops_hidden_units_in_training_only():
    torch.manual_seed(0)
    ensemble = Ensemble(2, (3, 50, 50, 4), dropout=0.5)
    x = torch.randn(6, 3)
    assert not torch.equal(ensemble(x), ensemble(x))
    ensemble.eval()
    assert torch.equal(ensemble(x), ensemble(x))
    linear = Ensemble(2, (3, 4), dropout=0.5)  # no hidden units, nothing to drop
    assert torch.equal(linear(x), linear(x))


def test_an_ensemble_refuses_bad_arguments():
    for members in (1.5, True, "two"):
        with refuses(TypeError, "members must be an integer"):
            Ensemble(members, (2, 1))
    with refuses(ValueError, "members must be at least 1, got 0"):
        Ensemble(0, (2, 1))
    with refuses(ValueError, "widths"):
        Ensemble(2, (3,))
    with refuses(ValueError, "activation must be one of"):
        Ensemble(2, (3, 1), "relou")
    with refuses(ValueError, "p must be"):
        Ensemble(2, (3, 1), dropout=1.0)
    for shape in ((3,), (5, 4), (3, 5, 3), (1, 2, 5, 3)):
        with refuses(ValueError, r"x must have shape \(n, 3\) or \(2, n, 3\), got"):
            Ensemble(2, (3, 1))(torch.zeros(shape))


def test_compile_and_autocast(monkeypatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # the run-time checks cannot be traced
    torch.manual_seed(0)
    ensemble, x = Ensemble(2, (3, 8, 1)).eval(), torch.randn(5, 3)
    compiled = torch.compile(ensemble, backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(x), ensemble(x))
    compiled = torch.compile(Dropout(0.5), backend="eager", fullgraph=True)
    assert set(compiled(torch.ones(100)).unique().tolist()) == {0.0, 2.0}
    with torch.autocast("cpu", torch.bfloat16):
        low = ensemble(x)
    assert low.dtype == torch.bfloat16
    torch.testing.assert_close(low.float(), ensemble(x), atol=0.05, rtol=0.05)


def test_ridge_factors_are_ridge_regression(problem):
    x, y, s, v = problem
    least_squares = torch.linalg.lstsq(x, y).solution
    for penalty in (0.01, 0.3, 5.0):
        factors = regularization.ridge_factors(s, penalty)
        ours = v @ (factors * (v.T @ least_squares))
        solver = linear_model.Ridge(alpha=len(x) * penalty, fit_intercept=False)
        np.testing.assert_allclose(ours, solver.fit(x, y).coef_, atol=1e-9)
        hat = x @ torch.linalg.solve(x.T @ x + len(x) * penalty * torch.eye(10), x.T)
        torch.testing.assert_close(hat.trace(), factors.sum())


def test_gradient_descent_factors_are_gradient_descent(problem):
    x, y, s, v = problem
    least_squares, n = torch.linalg.lstsq(x, y).solution, len(x)
    w = torch.zeros(10).double()
    for t in range(41):
        if t in (0, 1, 7, 40):
            factors = regularization.gradient_descent_factors(s, 0.2, t)
            torch.testing.assert_close(w, v @ (factors * (v.T @ least_squares)), atol=1e-12, rtol=0)
        w = w - 0.2 * x.T @ (x @ w - y) / n


def test_factors_exactly(device):
    s = torch.tensor([4.0, 1.0, 0.0], device=device)
    assert regularization.ridge_factors(s, 1.0).tolist() == pytest.approx([0.8, 0.5, 0])
    assert regularization.gradient_descent_factors(s, 0.25, 4).tolist() == pytest.approx([1, 1 - 0.75**4, 0])
    assert regularization.gradient_descent_factors(s, 0.25, 0).tolist() == [0, 0, 0]


def test_factors_refuse_bad_arguments():
    s = torch.tensor([4.0, 1.0])
    for penalty in (0.0, -1.0, math.nan):
        with refuses(ValueError, f"penalty must be positive, got {penalty}"):
            regularization.ridge_factors(s, penalty)
    for bad in (torch.tensor([-1.0, 1.0]), torch.tensor([math.nan])):
        with refuses(ValueError, "eigenvalues must be at least 0"):
            regularization.ridge_factors(bad, 1.0)
        with refuses(ValueError, "eigenvalues must be at least 0"):
            regularization.gradient_descent_factors(bad, 0.1, 3)
    for rate in (0.0, -0.1, 0.3, math.nan):
        with refuses(ValueError, f"learning_rate must be positive and at most 0.25, got {rate}"):
            regularization.gradient_descent_factors(s, rate, 3)
    with refuses(ValueError, "steps must be at least 0, got -1"):
        regularization.gradient_descent_factors(s, 0.1, -1)


def test_bias_and_variance_by_hand():
    predictions = torch.tensor([[1.0, 0.0], [3.0, 0.0], [2.0, 3.0]])
    truth = torch.tensor([1.0, 0.0])
    part = regularization.bias_variance(predictions, truth)
    e = (predictions - truth).double()
    pairs = [(r, q) for r in range(3) for q in range(3) if r < q]
    assert part.bias2 == pytest.approx(np.mean([(e[r] * e[q]).mean().item() for r, q in pairs]))
    assert part.variance == pytest.approx(np.mean([((e[r] - e[q]) ** 2).mean().item() / 2 for r, q in pairs]))
    assert part.variance == pytest.approx(predictions.var(0).mean().item())
    assert part.error == pytest.approx((e**2).mean().item())
    assert part.error == pytest.approx(part.bias2 + part.variance)
    assert part.error_se == pytest.approx((e**2).mean(1).std().item() / 3**0.5)  # the jackknife of a mean


def test_the_jackknife_is_the_one_that_leaves_out(generator):
    predictions, truth = torch.randn(8, 5, generator=generator), torch.zeros(5)
    part = regularization.bias_variance(predictions, truth)
    keep = [[q for q in range(8) if q != r] for r in range(8)]
    left = np.array([regularization.bias_variance(predictions[rows], truth)[:3] for rows in keep])
    errors = np.sqrt(7 * left.var(0))
    assert part[3:] == pytest.approx(tuple(errors))


@pytest.mark.slow
def test_bias_and_variance_are_unbiased_and_their_errors_honest(generator):
    """Normal predictions with bias 0.3 and variance 1 at 6 inputs, from 20 repetitions, 800 times."""
    truth = torch.linspace(-1, 1, 6)
    results = []
    for _ in range(800):
        predictions = truth + 0.3 + torch.randn(20, 6, generator=generator)
        results.append(regularization.bias_variance(predictions, truth))
    results = np.array(results)
    standard = results[:, :3].std(0, ddof=1)
    assert (np.abs(results[:, :3].mean(0) - [0.09, 1.0, 1.09]) < 5 * standard / 800**0.5).all()
    ratio = (results[:, 3:] ** 2).mean(0) / standard**2  # the jackknife's variance is conservative on average
    assert (ratio > 0.85).all()
    assert (ratio < 1.4).all()


def test_bias_variance_refuses_bad_shapes():
    with refuses(ValueError, r"predictions must have shape \(repeats, n\), 3 repeats or more, got \(2, 4\)"):
        regularization.bias_variance(torch.zeros(2, 4), torch.zeros(4))
    with refuses(ValueError, "predictions must have shape"):
        regularization.bias_variance(torch.zeros(4), torch.zeros(4))
    with refuses(ValueError, r"truth must have shape \(4,\), got \(3,\)"):
        regularization.bias_variance(torch.zeros(5, 4), torch.zeros(3))
