import base64
import io
import itertools
import re
from types import SimpleNamespace

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas
import pytest
import torch
from torch import nn

from deepstat import plotting
from helpers import refuses


def linear_light(colour):
    """sRGB to linear light, as WCAG 2 and IEC 61966-2-1 define it."""
    c = np.array(mpl.colors.to_rgb(colour))
    return np.where(c <= 0.04045, c / 12.92, ((c + 0.055) / 1.055) ** 2.4)


def contrast_to_white(colour):
    return 1.05 / (linear_light(colour) @ [0.2126, 0.7152, 0.0722] + 0.05)


# Machado, Oliveira and Fernandes (2009), severity 1, acting on linear light.
VISIONS = {
    "normal": np.eye(3),
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "tritanopia": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
}


def lab(light):
    """CIE 1976 L*a*b* of linear sRGB, white point D65."""
    to_xyz = [[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]
    xyz = np.array(to_xyz) @ np.clip(light, 0, 1) / [0.9505, 1.0, 1.089]
    f = np.where(xyz > 216 / 24389, np.cbrt(xyz), (24389 / 27 * xyz + 16) / 116)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


@pytest.mark.parametrize("colour", plotting.COLOURS)
def test_every_colour_stands_out_from_white(colour):
    assert contrast_to_white("#767676") == pytest.approx(4.54, abs=0.01)  # the well-known lightest grey for text
    assert contrast_to_white(colour) >= 3  # WCAG 2.1, 1.4.11


@pytest.mark.parametrize("vision", VISIONS)
def test_no_two_colours_look_alike(vision):
    seen = [lab(np.array(VISIONS[vision]) @ linear_light(colour)) for colour in plotting.COLOURS]
    nearest = min(np.linalg.norm(a - b) for a, b in itertools.combinations(seen, 2))
    assert nearest > 15  # about 2.3 is just noticeable; matplotlib's red and green come to about 8 in deuteranopia


def test_the_measure_would_find_a_bad_palette():
    red, green = (lab(np.array(VISIONS["deuteranopia"]) @ linear_light(c)) for c in ("#d62728", "#5A7A00"))
    assert np.linalg.norm(red - green) < 15


def test_the_style_is_white_small_enough_and_large_enough_to_read():
    plotting.use_style()
    fig, ax = plt.subplots()
    ax.plot([0, 1])
    ax.set(xlabel="x", ylabel="y", title="title")
    ax.legend(["line"])
    assert fig.get_figwidth() <= 7
    assert fig.get_facecolor() == (1, 1, 1, 1)
    assert fig.get_layout_engine() is not None
    assert fig.dpi == 150
    texts = fig.findobj(mpl.text.Text)
    assert min(text.get_fontsize() for text in texts) >= 9
    assert ax.lines[0].get_color() == plotting.COLOURS[0]


def test_a_figure_is_the_same_bytes_every_time():
    def png():
        plotting.use_style()
        ax = plotting.loss_curves(history())
        file = io.BytesIO()
        ax.figure.savefig(file, format="png")
        return file.getvalue()

    assert png() == png()


def history(validation=True, best_epoch=None):
    table = pandas.DataFrame({"epoch": [1, 2, 3], "train_loss": [3.0, 2.0, 1.0]})
    if validation:
        table["validation_loss"] = [3.0, 2.5, 2.6]
    return SimpleNamespace(table=table, best_epoch=best_epoch)


def test_loss_curves_draw_the_numbers_of_the_table():
    ax = plotting.loss_curves(history(best_epoch=2))
    train, validation, kept = ax.lines
    assert train.get_xydata().tolist() == [[1, 3], [2, 2], [3, 1]]
    assert validation.get_xydata().tolist() == [[1, 3], [2, 2.5], [3, 2.6]]
    assert kept.get_xdata() == [2, 2]
    assert train.get_linestyle() != validation.get_linestyle()
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("epoch", "loss")


def test_loss_curves_without_validation_are_one_line_on_the_axes_given():
    _, mine = plt.subplots()
    assert plotting.loss_curves(history(validation=False), ax=mine) is mine
    assert len(mine.lines) == 1
    assert len(plt.get_fignums()) == 1


def regions(ax):
    """The classes drawn, rows from low to high."""
    return ax.collections[0].get_array().reshape(50, 50)


@pytest.mark.parametrize("form", ["one", "column", "scores"])
def test_the_decision_surface_is_that_of_the_model(form):
    def model(points):
        score = points[:, 1] - 2 * points[:, 0]  # class 1 above the line y = 2 x
        return {"one": score, "column": score[:, None], "scores": torch.stack([-score, score], 1)}[form]

    x = torch.tensor([[-1.0, -1.0], [1.0, 1.0], [0.0, 1.0]])
    ax = plotting.decision_surface(model, x, torch.tensor([1, 0, 1]), resolution=50)
    mesh = ax.collections[0].get_coordinates()
    middle = (mesh[:-1, :-1] + mesh[1:, 1:]) / 2
    expected = middle[..., 1] > 2 * middle[..., 0]
    assert (regions(ax) == expected).mean() > 0.99  # but for cells that the line cuts
    assert {line.get_color() for line in ax.lines} == set(plotting.COLOURS[:2])
    assert len({line.get_marker() for line in ax.lines}) == 2
    assert sum(len(line.get_xdata()) for line in ax.lines) == 3


@pytest.mark.parametrize("training", [True, False])
def test_a_module_is_asked_in_evaluation_mode_on_its_device(device, training):
    model = nn.Sequential(nn.Linear(2, 3), nn.Dropout(0.9)).to(device, torch.float64).train(training)
    x, y = torch.randn(6, 2), torch.tensor([0, 1, 2] * 2)
    first = regions(plotting.decision_surface(model, x, y, resolution=50))
    second = regions(plotting.decision_surface(model, x.to(device), y.to(device), resolution=50))
    assert (first == second).all()
    assert model.training is training
    assert all(parameter.grad is None for parameter in model.parameters())


def test_a_module_that_fails_is_left_in_its_mode():
    model = nn.Linear(3, 1)
    with refuses(RuntimeError, "shapes cannot be multiplied"):
        plotting.decision_surface(model, torch.zeros(2, 2), torch.tensor([0, 1]))
    assert model.training


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"x": torch.zeros(3, 3)}, r"x must have shape \(n, 2\) .* got \(3, 3\)"),
        ({"x": torch.zeros(0, 2), "y": torch.zeros(0, dtype=torch.long)}, r"x must have .* got \(0, 2\)"),
        ({"y": torch.zeros(2, dtype=torch.long)}, r"y must have shape \(3,\), got \(2,\)"),
        ({"y": torch.tensor([0, 1, 6])}, "y must be classes from 0 to 5, got 0 to 6"),
        ({"y": torch.tensor([0, -1, 2])}, "y must be classes from 0 to 5, got -1 to 2"),
        ({"resolution": 1}, "resolution must be at least 2, got 1"),
        ({"model": lambda p: p[:5]}, r"model must map \(m, 2\) to .* got \(5, 2\) from \(40000, 2\)"),
        ({"model": lambda p: p.new_zeros(len(p), 9)}, r"with at most 6 classes, got \(40000, 9\)"),
    ],
)
def test_bad_input_of_the_decision_surface_is_refused(changes, message):
    good = {"model": lambda p: p[:, 0], "x": torch.zeros(3, 2), "y": torch.tensor([0, 1, 0])}
    with refuses(ValueError, message):
        plotting.decision_surface(**(good | changes))


@pytest.mark.parametrize(
    ("shape", "columns", "expected"),
    [((5, 8, 8), None, (2, 3)), ((5, 1, 8, 8), 5, (1, 5)), ((1, 3, 8, 4), None, (1, 1)), ((100, 8, 8), None, (13, 8))],
)
def test_an_image_grid_shows_every_image_once(shape, columns, expected):
    images = torch.rand(shape)
    axes = plotting.image_grid(images, columns=columns)
    assert axes.shape == expected
    shown = [ax.images[0].get_array() for ax in axes.flat if ax.images]
    assert len(shown) == shape[0]
    for image, pixels in zip(images, shown, strict=True):
        colour = image.movedim(0, -1) if shape[1] == 3 else image.reshape(shape[-2:])
        np.testing.assert_allclose(pixels, colour)
    assert axes[0, 0].figure.get_figwidth() <= 7


def test_images_share_one_scale_of_grey_and_may_have_titles():
    axes = plotting.image_grid(torch.stack([torch.zeros(2, 2), torch.ones(2, 2)]), titles=["a", 1])
    assert [ax.images[0].get_clim() for ax in axes.flat] == [(0, 1), (0, 1)]
    assert [ax.get_title() for ax in axes.flat] == ["a", "1"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"images": torch.zeros(8, 8)}, r"images must have shape .* got \(8, 8\)"),
        ({"images": torch.zeros(3, 2, 8, 8)}, r"images must have shape .* got \(3, 2, 8, 8\)"),
        ({"images": torch.zeros(0, 8, 8)}, r"images must have shape .* got \(0, 8, 8\)"),
        ({"images": torch.zeros(3, 8, 8), "titles": ["a"]}, "titles must be one for each of the 3 images, got 1"),
        ({"images": torch.zeros(3, 8, 8), "columns": 0}, "columns must be at least 1, got 0"),
    ],
)
def test_bad_input_of_the_image_grid_is_refused(arguments, message):
    with refuses(ValueError, message):
        plotting.image_grid(**arguments)


def frames(count):
    figures = []
    for place in range(count):
        figure, ax = plt.subplots(figsize=(2, 1))
        ax.plot([0, place + 1])
        figures.append(figure)
    return figures


def test_a_slider_shows_its_first_figure_and_holds_all_of_them():
    shown = plotting.slider(frames(3), [1, 10, "<b>"], "step", 'A line that "rises".').data
    pictures = re.findall(r'src="data:image/png;base64,([^"]+)"', shown)
    assert len(set(pictures)) == 3
    assert all(base64.b64decode(picture).startswith(b"\x89PNG") for picture in pictures)
    assert re.findall(r'data-frame="(\d)"( hidden)?', shown) == [("0", ""), ("1", " hidden"), ("2", " hidden")]
    assert "step 10" in shown
    assert "<b>" not in shown
    assert 'alt="A line that &quot;rises&quot;. Here: step 1."' in shown
    assert not plt.get_fignums()


def test_a_slider_is_the_same_bytes_every_time():
    first, second = (plotting.slider(frames(2), [0, 1], "step", "A line.").data for _ in range(2))
    assert first == second


def test_a_slider_refuses_a_single_figure_and_missing_values():
    with refuses(ValueError, "at least two"):
        plotting.slider(frames(1), [0], "step", "")
    with refuses(ValueError, "one for each of the 2 figures"):
        plotting.slider(frames(2), [0], "step", "")
    plt.close("all")
