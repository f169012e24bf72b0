r"""Simulated photographs of skin lesions, several of each subject, with the subject of each image.

No labelled medical images are bundled with the libraries that the book uses, and nothing here pretends to be one. The
simulation keeps what matters for splitting: all images of a subject show the same lesion on the same skin in the same
light and share their label, while pose and noise change from image to image.

Chapter: vision/training_cnns.
"""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float32, Int64
from torch import Tensor


@dataclass(frozen=True, repr=False)
class Lesions:
    """Images of subjects.

    Args:
        x: colour images in [0, 1], shape ``(n, 3, size, size)``.
        y: 1 for a malignant lesion, else 0, shape ``(n,)``.
        subject: whose lesion it is, shape ``(n,)``.
    """

    x: Float32[Tensor, "n 3 size size"]
    y: Int64[Tensor, " n"]
    subject: Int64[Tensor, " n"]

    def __repr__(self) -> str:
        return f"Lesions(x: {tuple(self.x.shape)}, {len(self.subject.unique())} subjects, simulated)"


def lesions(subjects: int = 60, images: int = 6, size: int = 24, effect: float = 1.0, seed: int = 0) -> Lesions:
    r"""Draw subjects, and images of each.

    *Subject.* The label is malignant for every second one. A skin colour between pale and dark; a pigment; a border
    :math:`r(\varphi) = r_0\,(1 + a \sum_{k=2}^5 c_k \cos(k\varphi + \psi_k))` with random :math:`c_k, \psi_k`; three
    spots inside, lighter or darker by :math:`v`; a light that falls off in a random direction.
    :math:`\log a` and :math:`\log v` are normal with standard deviation 0.5; their means differ by ``effect`` times
    2 between the classes. That is the only difference.

    *Image.* The camera turns by any angle, moves by up to 8 % of the width, and zooms by up to 10 %; brightness
    changes by up to 8 %, and independent normal noise of standard deviation 0.03 is added.

    Direction has no meaning: a turn by 90° or a mirror image leaves the distribution of images and label as it is.

    Args:
        subjects: number of subjects, at least 1.
        images: images of each, at least 1.
        size: height and width in pixels, at least 8.
        effect: difference between the classes; with 0 an image says nothing about the label.
        seed: of the random numbers.

    Returns:
        ``subjects * images`` images, those of a subject in a row.

    Raises:
        ValueError: if a number is out of range.
    """
    for name, value, least in (("subjects", subjects, 1), ("images", images, 1), ("size", size, 8), ("seed", seed, 0)):
        if value < least:
            raise ValueError(f"{name} must be at least {least}, got {value}")
    generator = torch.Generator().manual_seed(seed)

    def uniform(low: float | int, high: float | int, *shape: int) -> Tensor:
        return low + (high - low) * torch.rand(shape, generator=generator)

    def per_image(values: Tensor) -> Tensor:  # (subjects, ...) -> (n, ..., 1, 1)
        return values.repeat_interleave(images, 0)[..., None, None]

    n = subjects * images
    y = torch.arange(subjects) % 2
    shape, spots = (  # log a and log v
        math.log(middle) + 0.5 * torch.randn(subjects, generator=generator) + effect * 2.0 * (y - 0.5)
        for middle in (0.09, 0.2)
    )
    tone = uniform(0, 1, subjects, 1)
    pale, dark = torch.tensor([0.93, 0.78, 0.70]), torch.tensor([0.45, 0.30, 0.22])
    skin = pale + tone * (dark - pale) + 0.03 * torch.randn(subjects, 3, generator=generator)
    pigment = skin * uniform(0.35, 0.65, subjects, 1) * (1 + 0.1 * torch.randn(subjects, 3, generator=generator))
    radius = uniform(0.40, 0.60, subjects)
    c, psi = torch.randn(subjects, 4, generator=generator), uniform(0, 2 * math.pi, subjects, 4)
    spot_angle, spot_radius = uniform(0, 2 * math.pi, subjects, 3), uniform(0, 0.35, subjects, 3)
    sign = torch.randint(0, 2, (subjects, 3), generator=generator) * 2.0 - 1
    light_angle, light = uniform(0, 2 * math.pi, subjects), uniform(0, 0.25, subjects)

    turn, zoom = uniform(0, 2 * math.pi, n, 1, 1), uniform(0.9, 1.1, n, 1, 1)
    move = uniform(-0.16, 0.16, n, 2, 1, 1)  # the image is 2 wide
    side = (torch.arange(size) + 0.5) * 2 / size - 1
    vertical, horizontal = torch.meshgrid(side, side, indexing="ij")
    u, v = (horizontal - move[:, 0]) / zoom, (vertical - move[:, 1]) / zoom  # (n, size, size)
    r, phi = (u**2 + v**2).sqrt(), torch.atan2(v, u) - turn

    k = torch.arange(2, 6).view(4, 1, 1)
    waves = (per_image(c) * torch.cos(k * phi[:, None] + per_image(psi))).sum(1)  # (n, size, size)
    border = per_image(radius) * (1 + per_image(shape.exp()) * waves)
    inside = torch.sigmoid((border - r) * size / 2)  # 1 inside, 0 outside, within about a pixel
    a, b = r * torch.cos(phi), r * torch.sin(phi)  # coordinates that turn with the lesion
    centre = [per_image(spot_radius * f(spot_angle)) for f in (torch.cos, torch.sin)]
    bumps = torch.exp(-((a[:, None] - centre[0]) ** 2 + (b[:, None] - centre[1]) ** 2) / 0.03)
    mottle = 1 + per_image(spots.exp()) * (per_image(sign) * bumps).sum(1)
    lit = 1 + per_image(light) * (u * per_image(light_angle.cos()) + v * per_image(light_angle.sin()))
    lit = lit * uniform(0.92, 1.08, n, 1, 1)
    inside, mottle, lit = inside[:, None], mottle[:, None], lit[:, None]
    x = ((1 - inside) * per_image(skin) + inside * mottle * per_image(pigment)) * lit
    x = x + 0.03 * torch.randn(x.shape, generator=generator)
    subject = torch.arange(subjects).repeat_interleave(images)
    return Lesions(x.clamp(0, 1), y[subject], subject)
