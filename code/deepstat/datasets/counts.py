"""Bundled counts as tensors, with shapes, units, source and licence.

Chapter: foundations/losses.
"""

import torch

from deepstat.datasets.tabular import Table


def doctor_visits() -> Table:
    """Outpatient visits to a doctor in one year, 20,190 person-years of the RAND Health Insurance Experiment.

    Most persons are there for three or five years, in consecutive rows, but are not marked: rows of one person are
    not independent. A run of rows with equal ``x`` is one person, or several of a family that look alike.

    Returns:
        ``x`` of shape ``(20190, 9)``, ``y`` the number of visits, an integer from 0 to 77.
    """
    from statsmodels.datasets import randhie  # imported here: it takes a second, and only this needs it

    frame = randhie.load_pandas().data
    features = tuple(name for name in frame.columns if name != "mdvis")
    return Table(
        x=torch.tensor(frame[list(features)].to_numpy(), dtype=torch.float32),
        y=torch.tensor(frame["mdvis"].to_numpy(), dtype=torch.int64),
        features=features,
        units=("log(1 + percent)", "0 or 1", "log(dollars)", "log(dollars)", "0 to 1", "diseases")
        + ("0 or 1",) * 3,
        target="outpatient visits to a doctor in a year",
        classes=(),
        source="RAND Health Insurance Experiment; A. C. Cameron and P. K. Trivedi (2005), Microeconometrics: Methods "
        "and Applications, Cambridge University Press; statsmodels' randhie.",
        licence="Public domain, as statsmodels states.",
    )
