"""Bundled rankings as tensors, with shapes, source and licence.

Chapter: foundations/losses.
"""

from dataclasses import dataclass
from itertools import permutations

import torch
from jaxtyping import Int64
from torch import Tensor

# How many put goal 1 first, 2 second, 3 third, 4 last; then 1 2 4 3, 1 3 2 4, ... in lexicographic order.
_POLITICAL_GOALS = (137, 29, 309, 255, 52, 93, 48, 23, 61, 55, 33, 59, 330, 294, 117, 69, 70, 34, 21, 30, 29, 52, 35, 27)


@dataclass(frozen=True, repr=False)
class Rankings:
    """Complete rankings of the same items.

    Args:
        orders: the distinct rankings, each the items 0, 1, ... from best to worst, shape ``(rankings, items)``.
        counts: how many people gave each, shape ``(rankings,)``.
        items: what the items are called.
        source: where the data come from.
        licence: what is known about their use.
    """

    orders: Int64[Tensor, "rankings items"]
    counts: Int64[Tensor, " rankings"]
    items: tuple[str, ...]
    source: str
    licence: str

    def __repr__(self) -> str:
        return f"Rankings({int(self.counts.sum())} rankings of {len(self.items)} items)"


def political_goals() -> Rankings:
    """How 2,262 Germans ranked four political goals in 1974.

    Copies of the table agree in the 24 counts but not in what a row such as "3 1 2 4" means. We read the goals from
    first to last (as the R packages algstat and StatMethRank list them), so that 53 % put order and prices in the
    first two places and 8 % the other two goals. Read as the ranks of goals 1 to 4 (as the R package PLMIX does), the
    shares would be 20 % and 20 %.

    Returns:
        ``orders`` of shape ``(24, 4)``, ``counts`` of shape ``(24,)``.
    """
    return Rankings(
        orders=torch.tensor(list(permutations(range(4)))),
        counts=torch.tensor(_POLITICAL_GOALS),
        items=("order", "say", "prices", "freedom"),
        source="M. A. Croon (1989), Latent class models for the analysis of rankings, in New Developments in "
        "Psychological Choice Modeling, North-Holland, 99-121; the survey is S. H. Barnes, M. Kaase et al. (1979), "
        "Political Action, Sage.",
        licence="Published counts; no licence is stated for them.",
    )
