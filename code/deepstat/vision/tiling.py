"""Overlap-tile inference: an image of any size through a network of a fixed input size, without seams.

Chapter: vision/segmentation.
"""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from deepstat.vision.unet import UNet, nearest_size, output_size


def tiled(model: UNet, image: Float[Tensor, "1 channels height width"], tile: int) -> Float[
    Tensor, "1 classes height width"
]:
    r"""Logits of every pixel of an image, computed tile by tile.

    Ronneberger, Fischer and Brox, 2015, figure 2: the image is continued by reflection at its border; an input tile gives
    the part of the output whose context it holds. The paper's tiles are laid side by side. Here their corners are multiples
    of the network's ``stride`` :math:`2^K`, so that all tiles pool on the same grid: only then the result is that of
    the whole image in one pass.

    Args:
        model: an unpadded U-Net.
        image: shape ``(1, channels, height, width)``, each side longer than the model's margin.
        tile: height and width of the input tiles, a size that the model takes.

    Returns:
        Shape ``(1, classes, height, width)``.

    Raises:
        ValueError: if the model is padded, the image too small, or the tile does not fit or yields less than a stride.
    """
    if model.padded:
        raise ValueError("model must be unpadded: with padding, what a pixel gets depends on the tile that it is in")
    margin, stride, depth = model.margin, model.stride, len(model.up)
    height, width = image.shape[2:]
    if min(height, width) <= margin:
        raise ValueError(f"image must be higher and wider than the margin {margin}, got {height} x {width}")
    given = output_size(tile, depth)
    if given is None or given < stride:
        least = max(tile, 2 * margin + stride)
        raise ValueError(f"tile must be a size that the model takes, such as {nearest_size(least, depth)}, got {tile}")
    step = given // stride * stride
    rows, columns = range(0, height, step), range(0, width, step)
    extra = [(rows[-1] + given - height), (columns[-1] + given - width)]
    whole = functional.pad(image, [margin] * 4, mode="reflect")
    whole = functional.pad(whole, [0, max(0, extra[1]), 0, max(0, extra[0])])  # computed, then cut off
    strips = []
    for row in rows:
        parts = [model(whole[:, :, row : row + tile, column : column + tile]) for column in columns]
        strips.append(torch.cat([part[:, :, :step, :step] for part in parts], dim=3))
    return torch.cat(strips, dim=2)[:, :, :height, :width]
