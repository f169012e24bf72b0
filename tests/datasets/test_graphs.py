import dataclasses

import pytest
import torch

from deepstat.datasets import graphs


def test_karate_club_has_the_published_sizes():
    club = graphs.karate_club()
    assert club.x.shape == (34, 34)
    assert club.edge_index.shape == (2, 156)
    assert club.edge_weight.shape == (156,)
    assert (club.edge_index.dtype, club.edge_weight.dtype, club.y.dtype) == (torch.int64, torch.float32, torch.int64)
    assert club.y.bincount().tolist() == [17, 17]
    assert club.edge_weight.sum() == 2 * 231  # the entries of Zachary's matrix C above the diagonal
    assert all([club.source, club.licence])
    assert repr(club) == "Graph(34 nodes, 156 directed edges, 2 classes)"
    with pytest.raises(dataclasses.FrozenInstanceError):
        club.y = None


def test_the_leaders_lead_their_sides():
    club = graphs.karate_club()
    assert (club.y[0], club.y[33]) == (0, 1)
    assert club.classes == ("Mr. Hi", "Officer")
    assert club.classes[club.y[9]] == "Officer"  # as networkx's documentation says of row 10 of the paper's Table 3
    assert club.classes[club.y[8]] == "Mr. Hi"  # the member whom Zachary's flow model put on the other side
    degree = club.edge_index[0].bincount()
    assert set(degree.topk(2).indices.tolist()) == {0, 33}


def test_every_friendship_is_there_in_both_directions_with_one_weight():
    club = graphs.karate_club()
    adjacency = torch.zeros(34, 34)
    adjacency[club.edge_index[0], club.edge_index[1]] = club.edge_weight
    assert torch.equal(adjacency, adjacency.T)
    assert adjacency.count_nonzero() == 156
    assert adjacency.diagonal().sum() == 0
    order = club.edge_index[0] * 34 + club.edge_index[1]
    assert torch.equal(order, order.sort().values)


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:DeprecationWarning")
def test_the_edges_are_those_of_pytorch_geometric():
    from torch_geometric.datasets import KarateClub  # here, because its import warns

    club, theirs = graphs.karate_club(), KarateClub()[0]
    assert set(map(tuple, club.edge_index.T.tolist())) == set(map(tuple, theirs.edge_index.T.tolist()))


def test_southern_women_has_the_published_sizes():
    women = graphs.southern_women()
    assert women.attended.shape == (18, 14)
    assert women.attended.dtype == torch.int64
    assert women.attended.sum() == 89
    assert set(women.attended.unique().tolist()) == {0, 1}
    assert (len(women.actors), len(women.events)) == (18, 14)
    assert women.dates.shape == (14, 2)
    assert all([women.source, women.licence])
    assert repr(women) == "Affiliation(18 actors, 14 events, 89 edges)"
    with pytest.raises(dataclasses.FrozenInstanceError):
        women.events = ()


def test_southern_women_is_the_published_table():
    women = graphs.southern_women()
    assert women.attended.sum(1).tolist() == [8, 7, 8, 7, 4, 4, 4, 3, 4, 4, 4, 6, 7, 8, 5, 2, 2, 2]
    assert women.attended.sum(0).tolist() == [3, 3, 6, 4, 8, 8, 10, 14, 12, 5, 4, 6, 3, 3]
    assert women.actors[0] == "Evelyn Jefferson"
    assert women.attended[0].tolist() == [1, 1, 1, 1, 1, 1, 0, 1, 1, 0, 0, 0, 0, 0]
    assert torch.equal(women.attended[16], women.attended[17])  # Olivia Carleton and Flora Price
    months, days = women.dates.T
    assert months.min() == 2
    assert months.max() == 11
    assert days.max() == 27
    assert women.dates[women.events.index("E8")].tolist() == [9, 16]
    order = (100 * months + days).argsort().tolist()
    assert [women.events[event] for event in order[:3]] == ["E11", "E5", "E2"]
