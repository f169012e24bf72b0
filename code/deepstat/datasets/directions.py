"""Bundled directions as tensors, with shapes, units, source and licence.

Chapter: foundations/losses.
"""

import math

import torch

from deepstat.datasets.tabular import Table

# Distance in cm, direction in degrees.
_PERIWINKLES = (
    (107, 67), (46, 66), (33, 74), (67, 61), (122, 58), (69, 60), (43, 100), (30, 89), (12, 171), (25, 166),
    (37, 98), (69, 60), (5, 197), (83, 98), (68, 86), (38, 123), (21, 165), (1, 133), (71, 101), (60, 105),
    (71, 71), (71, 84), (57, 75), (53, 98), (38, 83), (70, 71), (7, 74), (48, 91), (7, 38), (21, 200), (27, 56),
)  # fmt: skip


def periwinkles() -> Table:
    """How far and in which direction 31 blue periwinkles moved after they had been put downshore.

    The snails are small *Nodilittorina unifasciata*, moved down from the height at which they normally live. Copies of
    the data differ in one number: the distance of the sixteenth is 38 in those that cite the article (the R package
    NPCirc, and here), 36 in the one that cites Fisher's book (the R package circular).

    Returns:
        ``x`` of shape ``(31, 1)``, the distance, and ``y`` the direction in radians, from -pi to pi.
    """
    table = torch.tensor(_PERIWINKLES, dtype=torch.float64)
    angle = torch.deg2rad(table[:, 1])
    return Table(
        x=table[:, :1].float(),
        y=torch.where(angle > math.pi, angle - 2 * math.pi, angle).float(),
        features=("distance",),
        units=("cm",),
        target="direction, radians",
        classes=(),
        source="N. I. Fisher and A. J. Lee (1992), Regression models for an angular response, Biometrics 48, 665-677, "
        "with data of A. Underwood and G. Chapman, also in N. I. Fisher (1993), Statistical Analysis of Circular Data, "
        "data set B.20.",
        licence="Published measurements; no licence is stated for them.",
    )
