import torch

from deepstat.datasets import counts


def test_doctor_visits_are_statsmodels_in_their_order():
    from statsmodels.datasets import randhie

    visits = counts.doctor_visits()
    frame = randhie.load_pandas().data
    assert visits.x.shape == (20190, 9)
    assert visits.y.dtype == torch.int64
    assert visits.y.tolist() == frame["mdvis"].tolist()
    torch.testing.assert_close(visits.x[:, 5], torch.tensor(frame["disea"].to_numpy(), dtype=torch.float32))
    assert visits.features == tuple(frame.columns[1:])
    assert len(visits.units) == len(visits.features)
    assert (visits.y.min(), visits.y.max()) == (0, 77)
    assert round(visits.y.float().mean().item(), 3) == 2.860
    assert visits.licence.startswith("Public domain")
