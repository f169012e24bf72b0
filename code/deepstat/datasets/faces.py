"""Faces and other cut-outs of the same photographs, bundled with scikit-image.

Chapter: vision/training_cnns.
"""

import torch
from skimage import data

from deepstat.datasets.images import Images


def faces() -> Images:
    """100 faces and 100 pieces of background from Labeled Faces in the Wild, grey, 25 × 25 pixels.

    scikit-image's ``lfw_subset``. The faces were drawn at random, the rest was cut out of the background of the same
    collection. Most of the latter have pixels that are exactly black, often a wedge in a corner, as alignment by a
    rotation leaves it; the faces have hardly any. Names are not given, and one person can be there several times.

    Returns:
        ``x`` of shape ``(200, 1, 25, 25)`` in [0, 1]; ``y`` is 0 for background and 1 for a face. The faces come
        first.
    """
    pixels = torch.tensor(data.lfw_subset(), dtype=torch.float32)
    return Images(
        x=pixels.unsqueeze(1),
        y=torch.arange(200).lt(100).long(),
        classes=("background", "face"),
        source="G. B. Huang, M. Mattar, H. Lee and E. Learned-Miller (2012), Learning to Align from Scratch, Advances "
        "in Neural Information Processing Systems 25; scikit-image's data.lfw_subset.",
        licence="scikit-image, which ships the data, states none for them; the photographs come from news pages.",
    )
