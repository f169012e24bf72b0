r"""Random transformations of images: geometry, colour, noise; batched, on any device.

Every function takes images of shape ``(n, channels, height, width)`` and transforms each with a draw of its own. A
parameter ``(low, high)`` is a range from which one number an image is drawn uniformly; with equal ends the
transformation is fixed. Random numbers come from ``generator``, or from PyTorch's global one if there is none. Colours
are in [0, 1], and the results are clamped to it. Computed in single precision at least, returned in the images' type.

Chapter: vision/training_cnns.
"""

import math
from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Generator, Tensor, nn
from torch.nn import functional

Batch = Float[Tensor, "n channels height width"]
Colour = Float[Tensor, "n 3 height width"]
Range = tuple[float | int, float | int]

LUMA = (0.299, 0.587, 0.114)  # weights of red, green and blue in the grey value, ITU-R BT.601


def flip(
    x: Batch, probability: float | int = 0.5, horizontal: bool = True, generator: Generator | None = None
) -> Batch:
    """Mirror each image with the given probability, left to right or else top to bottom.

    Args:
        x: images.
        probability: from 0 to 1.
        horizontal: whether left and right change places; top and bottom if not.
        generator: source of random numbers.

    Raises:
        ValueError: if ``x`` has another shape or ``probability`` is out of range.
    """
    _check(x)
    if not 0 <= probability <= 1:
        raise ValueError(f"probability must be from 0 to 1, got {probability}")
    mirrored = _draw((0.0, 1.0), x, generator) < probability  # never below 0, always below 1
    return torch.where(mirrored, x.flip(-1 if horizontal else -2), x)


def affine_matrix(
    degrees: Float[Tensor, " n"],
    factor: Float[Tensor, " n"],
    shear: Float[Tensor, " n"],
    shift: Float[Tensor, "n 2"],
) -> Float[Tensor, "n 2 3"]:
    r""":math:`[\mathbf A \mid \mathbf t]` with :math:`\mathbf A` = rotation · shear · scaling.

    A point at :math:`\mathbf p` goes to :math:`\mathbf A\mathbf p + \mathbf t`; coordinates are in pixels from the
    image's centre, :math:`x` to the right and :math:`y` down.

    Args:
        degrees: angle of the rotation, counterclockwise as one looks at the image, shape ``(n,)``.
        factor: the scale; above 1 enlarges.
        shear: angle in degrees by which verticals are tilted to the right.
        shift: :math:`\mathbf t` in pixels, to the right and down, shape ``(n, 2)``.
    """
    c, s = degrees.deg2rad().cos(), degrees.deg2rad().sin()
    k = shear.deg2rad().tan()
    first = torch.stack([c * factor, (s - k * c) * factor, shift[:, 0]], 1)
    second = torch.stack([-s * factor, (c + k * s) * factor, shift[:, 1]], 1)
    return torch.stack([first, second], 1)


def warp(x: Batch, matrix: Float[Tensor, "n 2 3"], padding: str = "zeros") -> Batch:
    r"""Move the content of each image by an affine map: :math:`y(\mathbf p) = x(\mathbf A^{-1}(\mathbf p - \mathbf t))`.

    Each pixel of the result looks up where it comes from and interpolates bilinearly between the four pixels there.

    Args:
        x: images.
        matrix: :math:`[\mathbf A \mid \mathbf t]` of each image, as from :func:`affine_matrix`, shape ``(n, 2, 3)``.
        padding: what lies outside: ``"zeros"``, ``"border"`` (the nearest pixel) or ``"reflection"``.

    Raises:
        ValueError: if a shape or ``padding`` is another.
    """
    _check(x)
    n, _, height, width = x.shape
    if matrix.shape != (n, 2, 3):
        raise ValueError(f"matrix must have shape ({n}, 2, 3), got {tuple(matrix.shape)}")
    if padding not in ("zeros", "border", "reflection"):
        raise ValueError(f"padding must be 'zeros', 'border' or 'reflection', got {padding!r}")
    dtype = torch.promote_types(x.dtype, torch.float32)
    matrix = matrix.to(x.device, dtype)
    rows = torch.arange(height, device=x.device, dtype=dtype) - (height - 1) / 2
    columns = torch.arange(width, device=x.device, dtype=dtype) - (width - 1) / 2
    p = torch.stack(torch.meshgrid(columns, rows, indexing="xy"), -1)  # (height, width, 2), centred pixels
    p = p.flatten(0, 1) - matrix[:, None, :, 2]  # (n, height * width, 2)
    source = torch.linalg.solve(matrix[:, :, :2], p.mT).mT  # A^-1 (p - t)
    grid = source / torch.tensor([width / 2, height / 2], device=x.device, dtype=dtype)  # sides at -1 and 1
    grid = grid.unflatten(1, (height, width))
    result = functional.grid_sample(x.to(dtype), grid, mode="bilinear", padding_mode=padding, align_corners=False)
    return result.to(x.dtype)


def affine(
    x: Batch,
    degrees: Range = (0.0, 0.0),
    factor: Range = (1.0, 1.0),
    shear: Range = (0.0, 0.0),
    shift: Range = (0.0, 0.0),
    padding: str = "zeros",
    generator: Generator | None = None,
) -> Batch:
    """Rotate, scale, shear and translate each image by random amounts.

    Args:
        x: images.
        degrees: range of the angle, counterclockwise.
        factor: range of the scale, positive.
        shear: range of the tilt in degrees, between -90 and 90.
        shift: range of the translation to the right, and independently down, in parts of width and height.
        padding: as in :func:`warp`.
        generator: source of random numbers.

    Raises:
        ValueError: if a shape, a range or ``padding`` is not as above.
    """
    _check(x)
    _check_range("degrees", degrees)
    _check_range("factor", factor, above=0)
    _check_range("shear", shear, above=-90, below=90)
    _check_range("shift", shift)
    numbers = [_draw(r, x, generator).flatten() for r in (degrees, factor, shear, shift, shift)]
    right, down = numbers[3] * x.shape[3], numbers[4] * x.shape[2]
    return warp(x, affine_matrix(*numbers[:3], torch.stack([right, down], 1)), padding)


def rotate(
    x: Batch, degrees: Range = (-15.0, 15.0), padding: str = "zeros", generator: Generator | None = None
) -> Batch:
    """Rotate each image about its centre; the arguments are those of :func:`affine`."""
    return affine(x, degrees=degrees, padding=padding, generator=generator)


def scale(x: Batch, factor: Range = (0.8, 1.2), padding: str = "zeros", generator: Generator | None = None) -> Batch:
    """Enlarge or shrink each image about its centre, both sides alike; the arguments are those of :func:`affine`."""
    return affine(x, factor=factor, padding=padding, generator=generator)


def crop(
    x: Batch, size: tuple[int, int], padding: int = 0, generator: Generator | None = None
) -> Float[Tensor, "n channels rows columns"]:
    """Cut a window out of each image at a random place.

    Args:
        x: images.
        size: rows and columns of the window.
        padding: zeros put around the image first, on each side. With ``size`` that of the image this is a random
            shift by whole pixels.
        generator: source of random numbers.

    Returns:
        The windows, shape ``(n, channels, *size)``.

    Raises:
        ValueError: if a shape is another, ``padding`` is negative or the window does not fit.
    """
    _check(x)
    if padding < 0:
        raise ValueError(f"padding must be at least 0, got {padding}")
    x = functional.pad(x, (padding,) * 4)
    n, channels, height, width = x.shape
    if not (1 <= size[0] <= height and 1 <= size[1] <= width):
        raise ValueError(f"size must be at least (1, 1) and at most ({height}, {width}), got {tuple(size)}")
    rows, columns = (
        (_draw((0.0, 1.0), x, generator, torch.float32) * (whole - part + 1)).long()
        + torch.arange(part, device=x.device)
        for whole, part in ((height, size[0]), (width, size[1]))
    )  # (n, 1, 1, part)
    images = torch.arange(n, device=x.device).view(-1, 1, 1, 1)
    planes = torch.arange(channels, device=x.device).view(1, -1, 1, 1)
    return x[images, planes, rows.mT, columns]


def brightness(x: Batch, factor: Range = (0.7, 1.3), generator: Generator | None = None) -> Batch:
    """Multiply all values of an image by one random factor of at least 0.

    Raises:
        ValueError: if a shape or range is another.
    """
    _check(x)
    _check_range("factor", factor, least=0)
    return _finish(x, _promote(x) * _draw(factor, x, generator))


def contrast(x: Batch, factor: Range = (0.7, 1.3), generator: Generator | None = None) -> Batch:
    """Multiply the deviations from the image's mean grey value by one random factor of at least 0.

    Raises:
        ValueError: if a shape or range is another.
    """
    _check(x)
    _check_range("factor", factor, least=0)
    values = _promote(x)
    mean = _grey(values).mean((1, 2, 3), keepdim=True)
    return _finish(x, mean + _draw(factor, x, generator) * (values - mean))


def saturation(x: Colour, factor: Range = (0.5, 1.5), generator: Generator | None = None) -> Colour:
    """Multiply each pixel's deviation from its own grey value by one random factor of at least 0; 0 leaves greys.

    Raises:
        ValueError: if the images are not in colour, or a shape or range is another.
    """
    _check(x, colour=True)
    _check_range("factor", factor, least=0)
    values = _promote(x)
    grey = _grey(values)
    return _finish(x, grey + _draw(factor, x, generator) * (values - grey))


def hue(x: Colour, degrees: Range = (-30.0, 30.0), generator: Generator | None = None) -> Colour:
    """Turn each pixel's hue on the colour circle by one random angle, its saturation and value (HSV) unchanged.

    Raises:
        ValueError: if the images are not in colour, or a shape or range is another.
    """
    _check(x, colour=True)
    _check_range("degrees", degrees)
    h, s, v = rgb_to_hsv(_promote(x)).split(1, 1)
    turned = (h + _draw(degrees, x, generator) / 360) % 1
    return _finish(x, hsv_to_rgb(torch.cat([turned, s, v], 1)))


def noise(x: Batch, deviation: Range = (0.0, 0.1), generator: Generator | None = None) -> Batch:
    """Add independent normal noise to all values, with one random standard deviation an image.

    Raises:
        ValueError: if a shape or range is another.
    """
    _check(x)
    _check_range("deviation", deviation, least=0)
    values = _promote(x)
    where = x.device if generator is None else generator.device
    draw = torch.randn(x.shape, generator=generator, device=where, dtype=values.dtype).to(x.device)
    return _finish(x, values + _draw(deviation, x, generator) * draw)


def colour_components(x: Colour) -> tuple[Float[Tensor, "3"], Float[Tensor, "3 3"]]:
    r"""Eigenvalues :math:`\lambda_j`, largest first, and eigenvectors (columns) of the covariance matrix of all pixels.

    Args:
        x: the training images.

    Raises:
        ValueError: if the images are not in colour.
    """
    _check(x, colour=True)
    pixels = _promote(x).movedim(1, 0).flatten(1)  # (3, pixels)
    values, vectors = torch.linalg.eigh(torch.cov(pixels))
    return values.flip(0).clamp(min=0), vectors.flip(1)


def pca_colour(
    x: Colour,
    lengths: Float[Tensor, "3"],
    vectors: Float[Tensor, "3 3"],
    deviation: float | int = 0.1,
    generator: Generator | None = None,
) -> Colour:
    r"""Add :math:`\sum_j \alpha_j l_j \mathbf p_j` to all pixels of an image, :math:`\alpha_j` normal, drawn anew.

    Krizhevsky, Sutskever and Hinton, *ImageNet Classification with Deep Convolutional Neural Networks*, 2012, section
    4.1, where :math:`l_j = \lambda_j`, the eigenvalue.

    Args:
        x: images.
        lengths: :math:`l_j`, shape ``(3,)``.
        vectors: :math:`\mathbf p_j` in the columns, as from :func:`colour_components`.
        deviation: standard deviation of :math:`\alpha_j`.
        generator: source of random numbers.

    Raises:
        ValueError: if the images are not in colour, a shape is another or ``deviation`` is negative.
    """
    _check(x, colour=True)
    if lengths.shape != (3,) or vectors.shape != (3, 3):
        got = tuple(lengths.shape), tuple(vectors.shape)
        raise ValueError(f"lengths and vectors must have shapes (3,) and (3, 3), got {got[0]} and {got[1]}")
    if not deviation >= 0:
        raise ValueError(f"deviation must be at least 0, got {deviation}")
    values = _promote(x)
    where = x.device if generator is None else generator.device
    alpha = deviation * torch.randn(len(x), 3, generator=generator, device=where, dtype=values.dtype).to(x.device)
    added = (alpha * lengths.to(values)) @ vectors.to(values).T  # (n, 3)
    return _finish(x, values + added[:, :, None, None])


class Augment(nn.Module):
    """Transforms images while it trains and passes them on while it is evaluated.

    Args:
        transforms: functions of a batch of images, applied in this order, such as
            ``functools.partial(rotate, degrees=(-10, 10))``.

    Shapes: ``(*, channels, height, width)``, with at least one dimension before them.
    """

    def __init__(self, *transforms: Callable[[Tensor], Tensor]):
        super().__init__()
        self.transforms = transforms

    def forward(
        self, x: Float[Tensor, "*batch channels height width"]
    ) -> Float[Tensor, "*batch channels rows columns"]:
        if not self.training:
            return x
        images = x.flatten(0, -4)
        for transform in self.transforms:
            images = transform(images)
        return images.unflatten(0, x.shape[:-3])


def rgb_to_hsv(x: Colour) -> Colour:
    r"""Hue (in turns, [0, 1)), saturation and value of red, green and blue. Smith, *Color Gamut Transform Pairs*, 1978.

    Value is the largest of the three, saturation the largest minus the smallest over the largest. A grey has hue 0.
    """
    _check(x, colour=True)
    r, g, b = x.unbind(1)
    v, low = x.amax(1), x.amin(1)
    c = v - low
    safe = torch.where(c > 0, c, 1.0)
    sixth = torch.where(v == r, ((g - b) / safe) % 6, torch.where(v == g, (b - r) / safe + 2, (r - g) / safe + 4))
    return torch.stack([sixth / 6 % 1, c / torch.where(v > 0, v, 1.0), v], 1)


def hsv_to_rgb(x: Colour) -> Colour:
    """The inverse of :func:`rgb_to_hsv`."""
    _check(x, colour=True)
    h, s, v = x.unbind(1)
    k = [(n + 6 * h) % 6 for n in (5, 3, 1)]
    return torch.stack([v - v * s * torch.minimum(t, 4 - t).clamp(0, 1) for t in k], 1)


def _grey(values: Tensor) -> Tensor:
    """The grey value of each pixel, ``(n, 1, height, width)``."""
    if values.shape[1] != 3:
        return values.mean(1, keepdim=True)
    return (values * torch.tensor(LUMA, device=values.device, dtype=values.dtype).view(3, 1, 1)).sum(1, keepdim=True)


def _promote(x: Tensor) -> Tensor:
    return x.to(torch.promote_types(x.dtype, torch.float32))


def _finish(x: Tensor, values: Tensor) -> Tensor:
    return values.clamp(0, 1).to(x.dtype)


def _draw(limits: Range, x: Tensor, generator: Generator | None, dtype: torch.dtype | None = None) -> Tensor:
    """One number an image, uniform on the range, ``(n, 1, 1, 1)``."""
    where = x.device if generator is None else generator.device
    dtype = dtype or torch.promote_types(x.dtype, torch.float32)
    u = torch.rand(len(x), 1, 1, 1, generator=generator, device=where, dtype=dtype).to(x.device)
    return limits[0] + (limits[1] - limits[0]) * u


def _check(x: Tensor, colour: bool = False) -> None:
    shape = "(n, 3, height, width)" if colour else "(n, channels, height, width)"
    if not isinstance(x, Tensor) or x.ndim != 4 or (colour and x.shape[1] != 3):
        got = tuple(x.shape) if isinstance(x, Tensor) else type(x).__name__
        raise ValueError(f"x must be images of shape {shape}, got {got}")
    if not x.is_floating_point():
        raise ValueError(f"x must be floating point, values in [0, 1], got {x.dtype}")


def _check_range(
    name: str,
    limits: Range,
    least: float | int = -math.inf,
    above: float | int = -math.inf,
    below: float | int = math.inf,
) -> None:
    good = len(limits) == 2 and limits[0] <= limits[1] and limits[0] >= least
    if not (good and limits[0] > above and limits[1] < below):
        words = [f"at least {least}"] if least > -math.inf else []
        words += [f"above {above}"] if above > -math.inf else []
        words += [f"below {below}"] if below < math.inf else []
        raise ValueError(f"{name} must be (low, high){', ' if words else ''}{', '.join(words)}, got {limits}")
