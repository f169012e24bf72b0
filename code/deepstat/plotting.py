"""One style for all figures, and the pictures that many chapters draw.

Chapter: reading_this_book.
"""

import base64
import html
import io
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import torch
from IPython.display import HTML
from jaxtyping import Float, Integer, Shaped
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from torch import Tensor, nn

if TYPE_CHECKING:
    from deepstat.training import History

# Blue, vermillion and green of Okabe and Ito's palette (Color Universal Design, 2008), with three darker colours in
# place of its pale ones: each has a contrast of 3 or more to white, and a test holds every pair apart for readers with
# normal, protanopic, deuteranopic and tritanopic vision.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#882255", "#7020E0", "#000000")
MARKERS = ("o", "s", "^", "D", "v", "P")


def use_style() -> None:
    """Set the book's figure style, as matplotlib's defaults from here on.

    White figures, so that they are legible as cards on a dark page; at most 7 inches wide with letters of 9 points or
    more, so that they are legible on a phone; the palette :data:`COLOURS`.
    """
    mpl.rcParams.update(
        {
            "axes.axisbelow": True,
            "axes.edgecolor": "#444444",
            "axes.facecolor": "white",
            "axes.grid": True,
            "axes.labelsize": 10,
            "axes.prop_cycle": mpl.cycler(color=COLOURS),
            "axes.spines.right": False,
            "axes.spines.top": False,
            "axes.titlesize": 11,
            "figure.constrained_layout.use": True,
            "figure.dpi": 150,
            "figure.facecolor": "white",
            "figure.figsize": (6.0, 3.4),
            "font.family": "DejaVu Sans",  # comes with matplotlib: the same letters on every machine
            "font.size": 10,
            "grid.color": "#DDDDDD",
            "grid.linewidth": 0.6,
            "image.cmap": "cividis",
            "legend.fontsize": 9,
            "legend.frameon": False,
            "lines.linewidth": 1.8,
            "lines.markersize": 5,
            "savefig.dpi": 150,
            "savefig.facecolor": "white",
            "svg.hashsalt": "deepstat",  # the same bytes at every build
            "xtick.labelsize": 9,
            "ytick.labelsize": 9,
        }
    )


def loss_curves(history: "History", ax: Axes | None = None) -> Axes:
    """Training loss, and validation loss if there is one, against the epoch.

    Args:
        history: what :func:`deepstat.training.fit` returned.
        ax: where to draw; a new figure if not given.

    Returns:
        The axes. The epoch whose parameters were kept by early stopping is marked by a vertical line.
    """
    ax = _axes(ax)
    table = history.table
    ax.plot(table["epoch"], table["train_loss"], color=COLOURS[0], label="training")
    if "validation_loss" in table:
        ax.plot(table["epoch"], table["validation_loss"], color=COLOURS[1], linestyle="--", label="validation")
        if history.best_epoch is not None:
            ax.axvline(history.best_epoch, color=COLOURS[-1], linestyle=":", linewidth=1, label="kept")
        ax.legend()
    ax.xaxis.get_major_locator().set_params(integer=True)
    ax.set(xlabel="epoch", ylabel="loss")
    return ax


def decision_surface(
    model: Callable[[Tensor], Tensor],
    x: Float[Tensor, "n 2"],
    y: Integer[Tensor, " n"],
    ax: Axes | None = None,
    resolution: int = 200,
) -> Axes:
    """The class that a model gives to each point of the plane, and the data.

    Args:
        model: maps ``(m, 2)`` to one score a point, ``(m,)`` or ``(m, 1)``, whose sign says class 0 or 1, or to one
            score a class, ``(m, classes)``, the highest of which wins. A module is asked in evaluation mode, on its
            own device, and left in the mode it was in.
        x: points, shape ``(n, 2)``.
        y: their classes 0, 1, ..., at most 5, shape ``(n,)``.
        ax: where to draw; a new figure if not given.
        resolution: points along each side of the grid.

    Returns:
        The axes: pale regions for the model, a marker of its own for each class of the data.

    Raises:
        ValueError: if a shape, a class or ``resolution`` is not as above.
    """
    if x.ndim != 2 or x.shape[1] != 2 or len(x) == 0:
        raise ValueError(f"x must have shape (n, 2) with n of at least 1, got {tuple(x.shape)}")
    if y.shape != x.shape[:1]:
        raise ValueError(f"y must have shape ({len(x)},), got {tuple(y.shape)}")
    if y.min() < 0 or y.max() >= len(COLOURS):
        raise ValueError(f"y must be classes from 0 to {len(COLOURS) - 1}, got {y.min().item()} to {y.max().item()}")
    if resolution < 2:
        raise ValueError(f"resolution must be at least 2, got {resolution}")
    ax = _axes(ax)
    x, y = x.detach().cpu(), y.detach().cpu()
    low, high = x.min(0).values, x.max(0).values
    margin = 0.08 * (high - low).clamp(min=1e-6)
    horizontal, vertical = (torch.linspace(a, b, resolution) for a, b in zip(low - margin, high + margin, strict=True))
    grid = torch.cartesian_prod(horizontal, vertical).to(x.dtype)  # (resolution**2, 2)
    label = _predict(model, grid).reshape(resolution, resolution).T  # rows: vertical, columns: horizontal
    classes = max(int(label.max()), int(y.max())) + 1
    pale = ListedColormap([_pale(colour) for colour in COLOURS[:classes]])
    scale = {"cmap": pale, "vmin": -0.5, "vmax": classes - 0.5}
    ax.pcolormesh(horizontal.numpy(), vertical.numpy(), label, shading="nearest", **scale)
    for k in y.unique().tolist():
        points = x[y == k].float().numpy()
        ax.plot(*points.T, MARKERS[k], color=COLOURS[k], markeredgecolor="white", markeredgewidth=0.5, label=f"{k}")
    ax.grid(False)
    return ax


def image_grid(
    images: Shaped[Tensor, "n *rest"], titles: Sequence[object] | None = None, columns: int | None = None
) -> np.ndarray:
    """Images side by side, on one scale of grey values.

    Args:
        images: grey, ``(n, height, width)`` or ``(n, 1, height, width)``, or colour in [0, 1] (integers: in
            0, ..., 255), ``(n, 3, height, width)``.
        titles: one for each image.
        columns: images in a row; as near to a square as possible, and at most 8, if not given.

    Returns:
        The axes, an array of shape ``(rows, columns)``; those without an image are blank.

    Raises:
        ValueError: if there is no image, the shape is another, or there are more or fewer titles than images.
    """
    if images.ndim == 4 and images.shape[1] == 1:
        images = images[:, 0]
    if not (images.ndim == 3 or (images.ndim == 4 and images.shape[1] == 3)) or images.numel() == 0:
        raise ValueError(
            f"images must have shape (n, height, width) or (n, 1 or 3, height, width), got {tuple(images.shape)}"
        )
    if titles is not None and len(titles) != len(images):
        raise ValueError(f"titles must be one for each of the {len(images)} images, got {len(titles)}")
    if columns is None:
        columns = min(8, int(np.ceil(len(images) ** 0.5)))
    if columns < 1:
        raise ValueError(f"columns must be at least 1, got {columns}")
    rows = -(-len(images) // columns)
    pixels = images.detach().cpu()
    pixels = pixels.float() if pixels.is_floating_point() else pixels
    pixels = pixels.movedim(1, -1).numpy() if pixels.ndim == 4 else pixels.numpy()
    width = min(7.0, 1.2 * columns)
    size = (width, width / columns * rows * (images.shape[-2] / images.shape[-1]) + (0.25 * rows if titles else 0))
    _, axes = plt.subplots(rows, columns, figsize=size, squeeze=False, layout="constrained")
    for k, ax in enumerate(axes.flat):
        ax.set_axis_off()
        if k < len(pixels):
            ax.imshow(pixels[k], cmap="gray", vmin=pixels.min(), vmax=pixels.max(), interpolation="nearest")
            if titles is not None:
                ax.set_title(str(titles[k]), fontsize=9)
    return axes


def _axes(ax: Axes | None) -> Axes:
    return plt.subplots(layout="constrained")[1] if ax is None else ax


def _pale(colour: str, share: float = 0.25) -> np.ndarray:
    return 1 - share * (1 - np.array(mpl.colors.to_rgb(colour)))


def _predict(model: Callable[[Tensor], Tensor], points: Tensor) -> np.ndarray:
    """The class of each point."""
    training = isinstance(model, nn.Module) and model.training
    if isinstance(model, nn.Module):
        model.eval()
        parameter = next(model.parameters(), points)
        points = points.to(parameter.device, parameter.dtype)
    try:
        with torch.no_grad():
            score = model(points)
    finally:
        if training:
            model.train()
    if score.shape in ((len(points),), (len(points), 1)):
        return (score.reshape(-1) > 0).long().cpu().numpy()
    if score.ndim != 2 or len(score) != len(points) or score.shape[1] > len(COLOURS):
        raise ValueError(
            f"model must map (m, 2) to (m,), (m, 1) or (m, classes) with at most {len(COLOURS)} classes, "
            f"got {tuple(score.shape)} from {tuple(points.shape)}"
        )
    return score.argmax(1).cpu().numpy()


def slider(figures: Sequence[Figure], values: Sequence[object], name: str, alt: str) -> HTML:
    """Figures of which a slider shows one at a time, in a page and in a notebook, without a running kernel.

    Args:
        figures: at least two figures of one size, in the slider's order. They are closed.
        values: what the slider says at each figure, as many as there are figures.
        name: what the slider moves, such as ``"step"``.
        alt: what is seen, for readers who do not see it.

    Returns:
        An object that a notebook cell shows as its result.

    Raises:
        ValueError: if there are fewer than two figures or not as many values.
    """
    if len(figures) < 2:
        raise ValueError(f"figures must be at least two, got {len(figures)}")
    if len(values) != len(figures):
        raise ValueError(f"values must be one for each of the {len(figures)} figures, got {len(values)}")
    frames = []
    for place, (figure, value) in enumerate(zip(figures, values, strict=True)):
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", dpi=110, metadata={"Software": None})
        plt.close(figure)
        picture = base64.b64encode(buffer.getvalue()).decode()
        words = html.escape(f"{name} {value}", quote=True)
        frames.append(
            f'<div data-frame="{place}"{" hidden" if place else ""}>'
            f'<img style="width:100%" alt="{html.escape(alt, quote=True)} Here: {words}." '
            f'src="data:image/png;base64,{picture}"><p style="text-align:center;margin:0">{words}</p></div>'
        )
    return HTML(
        '<figure style="background:white;color:black;max-width:42rem;margin:0">'
        + "".join(frames)
        + f'<input type="range" min="0" max="{len(frames) - 1}" value="0" style="width:100%" '
        f'aria-label="{html.escape(name, quote=True)}" oninput="'
        "for (const f of this.closest('figure').querySelectorAll('[data-frame]')) "
        'f.hidden = f.dataset.frame !== this.value"></figure>'
    )
