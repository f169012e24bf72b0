import pytest
import torch
from torch import nn

from deepstat.datasets.graphs import karate_club
from deepstat.graphs.gcn import GCNConv
from deepstat.graphs.message_passing import GNN
from deepstat.graphs.node_classification import accuracy, fit_nodes, minimize
from helpers import refuses

LEADERS = torch.tensor([0, 33])


def test_it_is_adam():
    point = nn.Linear(1, 1)
    start = point.weight.item()
    last = minimize(lambda: 3 * point.weight.sum(), point, steps=2, rate=0.1)
    assert point.weight.item() == pytest.approx(start - 0.2, abs=1e-6)  # the step does not depend on the slope
    assert last == pytest.approx(3 * (start - 0.1), abs=1e-5)  # before the last step


@pytest.mark.slow
def test_the_decay_pulls_to_zero():
    point = nn.Linear(1, 1, bias=False)
    nn.init.constant_(point.weight, 2.0)
    minimize(lambda: (point.weight - 1).square().sum() / 2, point, steps=2000, rate=0.01, decay=1.0)
    assert point.weight.item() == pytest.approx(0.5, abs=1e-4)  # of (w - 1)^2 / 2 + w^2 / 2


def test_the_karate_club(device):
    club = karate_club()
    torch.manual_seed(0)
    model = GNN([GCNConv(34, 8), GCNConv(8, 2)], dropout=0.5).to(device)
    scores = fit_nodes(model, club, LEADERS, steps=100)
    assert scores.device.type == "cpu"
    assert not model.training
    with torch.no_grad():
        torch.testing.assert_close(model(club.x.to(device), club.edge_index.to(device)).cpu(), scores)
    assert scores.argmax(1)[LEADERS].tolist() == club.y[LEADERS].tolist()
    assert accuracy(scores.argmax(1), club, LEADERS) > 0.8


def test_only_the_labels_of_the_rows_are_used():
    club = karate_club()
    found = []
    for flip in (False, True):
        y = club.y.clone()
        if flip:
            y[1:33] = 1 - y[1:33]
        graph = type(club)(club.x, club.edge_index, club.edge_weight, y, club.classes, "", "")
        torch.manual_seed(0)
        found.append(fit_nodes(GNN([GCNConv(34, 4), GCNConv(4, 2)]), graph, LEADERS, steps=5))
    assert torch.equal(*found)


def test_the_accuracy_leaves_out_the_labelled():
    club = karate_club()
    guess = club.y.clone()
    guess[LEADERS] = 1 - guess[LEADERS]
    assert accuracy(guess, club, LEADERS) == 1
    guess[1] = 1 - guess[1]
    assert accuracy(guess, club, LEADERS) == 31 / 32


def test_bad_input_is_refused():
    club, model = karate_club(), GNN([GCNConv(34, 2)])
    with refuses(ValueError, "rows must name at least one node"):
        fit_nodes(model, club, LEADERS[:0])
    with refuses(ValueError, "steps must be at least 1, got 0"):
        fit_nodes(model, club, LEADERS, steps=0)
    with refuses(ValueError, "rows must leave at least one node"):
        accuracy(club.y, club, torch.arange(34))
    with refuses(FloatingPointError, "the loss is nan after 1 steps; lower the rate"):
        minimize(lambda: model.layers[0].bias.sum() * torch.nan, model, 1, 0.1)
