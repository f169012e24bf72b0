import colorsys
from functools import partial

import jaxtyping
import numpy as np
import pytest
import torch
from PIL import Image, ImageEnhance
from scipy import ndimage, stats
from skimage import color

from deepstat.vision import augmentation
from deepstat.vision.augmentation import Augment, affine_matrix, warp
from helpers import refuses

GEOMETRY = {
    "flip": augmentation.flip,
    "rotate": augmentation.rotate,
    "scale": augmentation.scale,
    "crop": partial(augmentation.crop, size=(6, 5)),
    "affine": partial(augmentation.affine, degrees=(-9, 9), factor=(0.9, 1.1), shear=(-9, 9), shift=(-0.1, 0.1)),
}
COLOUR = {
    "brightness": augmentation.brightness,
    "contrast": augmentation.contrast,
    "saturation": augmentation.saturation,
    "hue": augmentation.hue,
    "noise": augmentation.noise,
    "pca_colour": partial(augmentation.pca_colour, lengths=torch.tensor([1.0, 0.5, 0.2]), vectors=torch.eye(3)),
}
EVERY = GEOMETRY | COLOUR
every = pytest.mark.parametrize("transform", EVERY.values(), ids=list(EVERY))


@pytest.fixture
def pictures(generator):
    """Smooth random colour images, 7 high and 9 wide."""
    coarse = torch.rand(5, 3, 4, 5, generator=generator)
    return torch.nn.functional.interpolate(coarse, (7, 9), mode="bilinear") * 0.8 + 0.1


@every
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_the_type_and_device_stay_and_each_image_has_its_own_draw(transform, dtype, pictures, device):
    x = pictures[:1].expand(40, -1, -1, -1).to(device, dtype)
    y = transform(x, generator=torch.Generator(device).manual_seed(1))
    assert (y.dtype, y.device.type, len(y)) == (dtype, device.type, 40)
    assert y.shape == ((40, 3, 6, 5) if transform is EVERY["crop"] else x.shape)
    assert 0 <= y.min() <= y.max() <= 1
    distinct = len(y.float().flatten(1).unique(dim=0))
    assert distinct == 2 if transform is augmentation.flip else distinct > 7


@every
def test_the_generator_decides_and_the_global_one_where_there_is_none(transform, pictures):
    first, again = (transform(pictures, generator=torch.Generator().manual_seed(3)) for _ in range(2))
    assert torch.equal(first, again)
    torch.manual_seed(3)
    assert torch.equal(transform(pictures), first)
    before = torch.get_rng_state()
    transform(pictures, generator=torch.Generator().manual_seed(3))
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.slow
@every
def test_it_compiles(transform, pictures, monkeypatch):
    """The eager backend traces and needs no C++ compiler; the run-time checks of shapes cannot be traced."""
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    torch.compiler.reset()
    whole = torch.compile(transform, backend="eager", fullgraph=True)
    torch.manual_seed(3)
    expected = transform(pictures)
    torch.manual_seed(3)
    torch.testing.assert_close(whole(pictures), expected)


@every
def test_wrong_images_are_refused(transform):
    with refuses(ValueError, r"images of shape .* got \(3, 7, 9\)"):
        transform(torch.rand(3, 7, 9))
    with refuses(ValueError, "floating point"):
        transform(torch.zeros(2, 3, 7, 9, dtype=torch.uint8))


@pytest.mark.parametrize("name", ["saturation", "hue", "pca_colour"])
def test_colours_need_three_channels(name):
    with refuses(ValueError, r"\(n, 3, height, width\), got \(2, 1, 7, 9\)"):
        EVERY[name](torch.rand(2, 1, 7, 9))


def test_wrong_parameters_are_refused(pictures):
    for call, message in (
        (lambda: augmentation.flip(pictures, 1.5), "probability must be from 0 to 1, got 1.5"),
        (lambda: augmentation.rotate(pictures, (5, -5)), "degrees must be"),
        (lambda: augmentation.scale(pictures, (0, 1)), r"factor must be \(low, high\), above 0"),
        (lambda: augmentation.affine(pictures, shear=(0, 90)), "shear must be .* above -90, below 90"),
        (lambda: augmentation.affine(pictures, shift=(0.1, 0)), "shift must be"),
        (lambda: augmentation.affine(pictures, padding="wrap"), "padding must be 'zeros', 'border' or 'reflection'"),
        (lambda: warp(pictures, torch.eye(2, 3)), r"matrix must have shape \(5, 2, 3\)"),
        (lambda: augmentation.crop(pictures, (8, 9)), r"at most \(7, 9\), got \(8, 9\)"),
        (lambda: augmentation.crop(pictures, (7, 9), padding=-1), "padding must be at least 0"),
        (lambda: augmentation.brightness(pictures, (-0.1, 1)), "factor must be .* at least 0"),
        (lambda: augmentation.contrast(pictures, (-0.1, 1)), "factor must be .* at least 0"),
        (lambda: augmentation.saturation(pictures, (-0.1, 1)), "factor must be .* at least 0"),
        (lambda: augmentation.hue(pictures, (9, 8)), "degrees must be"),
        (lambda: augmentation.noise(pictures, (-0.1, 1)), "deviation must be .* at least 0"),
        (lambda: augmentation.pca_colour(pictures, torch.ones(2), torch.eye(3)), "lengths and vectors must have"),
        (lambda: augmentation.pca_colour(pictures, torch.ones(3), torch.eye(3), -1), "deviation must be at least 0"),
    ):
        with refuses(ValueError, message):
            call()


def test_flips_are_numpys_and_come_as_often_as_they_should(pictures):
    numbers = pictures.numpy()
    np.testing.assert_array_equal(augmentation.flip(pictures, 1.0), numbers[..., ::-1])
    np.testing.assert_array_equal(augmentation.flip(pictures, 1.0, horizontal=False), numbers[..., ::-1, :])
    assert torch.equal(augmentation.flip(pictures, 0.0), pictures)
    x = torch.tensor([[1.0, 0.0]]).expand(4000, 1, 1, 2)
    turned = augmentation.flip(x, 0.3, generator=torch.Generator().manual_seed(0))[:, 0, 0, 1].sum().item()
    assert stats.binomtest(int(turned), 4000, 0.3).pvalue > 0.001


@pytest.mark.parametrize("turns", [0, 1, 2, 3, -1])
def test_quarter_turns_are_rot90(turns, generator, device):
    x = torch.rand(2, 3, 6, 6, generator=generator, dtype=torch.float64).to(device)
    y = augmentation.rotate(x, (90.0 * turns, 90.0 * turns))
    torch.testing.assert_close(y, torch.rot90(x, turns, (2, 3)), rtol=0, atol=1e-12)


@pytest.mark.parametrize(("padding", "mode"), [("zeros", "grid-constant"), ("border", "nearest"), ("reflection", "reflect")])
def test_a_warp_is_scipys_affine_transform(padding, mode, generator):
    """SciPy maps rows and columns of the result to the source; we say where the content goes, in x and y."""
    x = torch.rand(4, 2, 7, 9, generator=generator, dtype=torch.float64)
    matrix = affine_matrix(
        torch.tensor([20.0, -35.0, 0.0, 170.0]).double(),
        torch.tensor([1.3, 0.8, 1.0, 1.1]).double(),
        torch.tensor([10.0, -20.0, 0.0, 5.0]).double(),
        torch.tensor([[0.7, -1.2], [0.0, 2.0], [1.5, 0.25], [-3.0, 0.0]]).double(),
    )
    y = warp(x, matrix, padding)
    swap = np.array([[0.0, 1], [1, 0]])
    centre = np.array([3.0, 4.0])  # row and column
    for image, result, m in zip(x, y, matrix.numpy(), strict=True):
        inverse = np.linalg.inv(swap @ m[:, :2] @ swap)
        offset = centre - inverse @ (centre + swap @ m[:, 2])
        for plane, ours in zip(image, result, strict=True):
            reference = ndimage.affine_transform(plane.numpy(), inverse, offset, order=1, mode=mode)
            np.testing.assert_allclose(ours, reference, atol=1e-12)


def test_the_matrix_is_rotation_times_shear_times_scaling_and_its_signs_are_seen():
    one, zero, still = torch.ones(1), torch.zeros(1), torch.zeros(1, 2)
    right, up = torch.tensor([1.0, 0]), torch.tensor([0.0, -1])  # y points down
    turn = affine_matrix(90 * one, one, zero, still)[0, :, :2]
    torch.testing.assert_close(turn @ right, up, atol=1e-6, rtol=0)  # counterclockwise
    tilt = affine_matrix(zero, one, 45 * one, still)[0, :, :2]
    torch.testing.assert_close(tilt @ up, right + up, atol=1e-6, rtol=0)  # verticals lean right
    torch.testing.assert_close(tilt @ right, right)
    whole = affine_matrix(30 * one, 2 * one, 20 * one, torch.tensor([[3.0, 4.0]]))[0]
    parts = [affine_matrix(30 * one, one, zero, still), affine_matrix(zero, one, 20 * one, still)]
    torch.testing.assert_close(whole[:, :2], parts[0][0, :, :2] @ parts[1][0, :, :2] * 2)
    assert whole[:, 2].tolist() == [3, 4]


def test_shifts_go_right_and_down_by_parts_of_the_size():
    x = torch.zeros(1, 1, 10, 20)
    x[0, 0, 4, 6] = 1
    y = augmentation.affine(x, shift=(0.1, 0.1))
    assert y[0, 0, 5, 8].item() == pytest.approx(1, abs=1e-5)
    assert y.sum().item() == pytest.approx(1, abs=1e-5)


def test_scaling_keeps_the_centre_and_enlarges():
    x = torch.zeros(1, 1, 9, 9)
    x[0, 0, 3:6, 3:6] = 1
    y = augmentation.scale(x, (2, 2))
    assert y[0, 0, 4, 4] == 1
    assert y.sum() == pytest.approx(36, abs=1)


def test_draws_fill_the_range_uniformly():
    x = torch.full((4000, 1, 1, 1), 0.5)
    y = augmentation.brightness(x, (0.6, 1.4), generator=torch.Generator().manual_seed(0)).flatten() / 0.5
    assert stats.kstest(y.numpy(), stats.uniform(0.6, 0.8).cdf).pvalue > 0.001


def test_every_window_is_cut_equally_often(generator):
    x = torch.arange(12.0).view(1, 1, 3, 4).expand(4000, 1, 3, 4)
    windows = augmentation.crop(x, (2, 2), generator=generator)
    corner = windows[:, 0, 0, 0]
    assert torch.equal(windows[:, 0], corner.view(-1, 1, 1) + torch.tensor([[0.0, 1], [4, 5]]))
    values, counts = corner.unique(return_counts=True)
    assert values.tolist() == [0, 1, 2, 4, 5, 6]
    assert stats.chisquare(counts.numpy()).pvalue > 0.001
    padded = augmentation.crop(x, (3, 4), padding=2, generator=generator)
    assert padded.shape == x.shape
    assert (padded[:, 0, 0, 0] == 0).any()
    assert len(padded[:, 0, 1, 1].unique()) == 12


def test_colours_are_pillows(pictures):
    """Pillow computes on 8 bits, and rounds the mean grey value: two and a half steps of 1/255 at most."""
    eight = (pictures * 255).round()
    for factor in (0.0, 0.6, 1.0, 1.7):
        for ours, theirs in (
            (augmentation.brightness, ImageEnhance.Brightness),
            (augmentation.contrast, ImageEnhance.Contrast),
            (augmentation.saturation, ImageEnhance.Color),
        ):
            y = ours(eight / 255, (factor, factor)) * 255
            for image, result in zip(eight, y, strict=True):
                picture = Image.fromarray(image.byte().movedim(0, -1).numpy())
                reference = torch.tensor(np.array(theirs(picture).enhance(factor))).movedim(-1, 0)
                assert (result - reference).abs().max() <= 2.5


def test_grey_images_have_contrast_too():
    x = torch.tensor([[[[0.2, 0.4]]]])
    torch.testing.assert_close(augmentation.contrast(x, (2, 2)), torch.tensor([[[[0.1, 0.5]]]]))


def test_hsv_is_colorsyss_and_skimages(generator):
    x = torch.rand(3, 3, 8, 8, generator=generator, dtype=torch.float64)
    x[0, :, 0] = torch.tensor([[0.0, 0, 0], [1, 1, 1], [1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 0], [0, 1, 1], [1, 0, 1]]).T
    hsv = augmentation.rgb_to_hsv(x)
    for pixel, ours in zip(x.movedim(1, -1).reshape(-1, 3), hsv.movedim(1, -1).reshape(-1, 3), strict=True):
        np.testing.assert_allclose(ours, colorsys.rgb_to_hsv(*pixel.tolist()), atol=1e-12)
    np.testing.assert_allclose(hsv.movedim(1, -1), color.rgb2hsv(x.movedim(1, -1).numpy()), atol=1e-12)
    torch.testing.assert_close(augmentation.hsv_to_rgb(hsv), x, rtol=0, atol=1e-12)


def test_a_turned_hue_is_colorsyss_and_a_full_circle_changes_nothing(pictures):
    x = pictures.double()
    y = augmentation.hue(x, (75, 75))
    for pixel, ours in zip(x.movedim(1, -1).reshape(-1, 3), y.movedim(1, -1).reshape(-1, 3), strict=True):
        h, s, v = colorsys.rgb_to_hsv(*pixel.tolist())
        np.testing.assert_allclose(ours, colorsys.hsv_to_rgb((h + 75 / 360) % 1, s, v), atol=1e-12)
    torch.testing.assert_close(augmentation.hue(x, (360, 360)), x, rtol=0, atol=1e-12)
    red = torch.tensor([1.0, 0, 0]).view(1, 3, 1, 1)
    torch.testing.assert_close(augmentation.hue(red, (120, 120)).flatten(), torch.tensor([0.0, 1, 0]), atol=1e-6, rtol=0)


def test_noise_has_the_deviation_it_says():
    x = torch.full((1, 1, 200, 200), 0.5)
    y = augmentation.noise(x, (0.05, 0.05), generator=torch.Generator().manual_seed(0)) - 0.5
    assert y.std().item() == pytest.approx(0.05, rel=5 / (2 * 40_000) ** 0.5)  # five standard errors
    assert stats.kstest(y.flatten().numpy(), stats.norm(0, 0.05).cdf).pvalue > 0.001


def test_components_are_numpys_and_colours_scatter_along_them(generator):
    mixing = torch.tensor([[0.1, 0.02, 0.0], [0.08, -0.03, 0.01], [0.09, 0.0, -0.02]])
    x = 0.5 + torch.einsum("cd,ndhw->nchw", mixing, torch.randn(4, 3, 20, 20, generator=generator))
    values, vectors = augmentation.colour_components(x.clamp(0, 1))
    pixels = x.clamp(0, 1).movedim(1, -1).reshape(-1, 3).double().numpy()
    covariance = np.cov(pixels.T)
    np.testing.assert_allclose(values, np.linalg.svd(covariance)[1], rtol=1e-4)
    np.testing.assert_allclose(covariance @ vectors.numpy(), vectors.numpy() * values.numpy(), atol=1e-7)

    flat = torch.full((6000, 3, 1, 2), 0.5, dtype=torch.float64)
    y = augmentation.pca_colour(flat, values.sqrt(), vectors, 0.2, generator) - 0.5
    assert torch.equal(y[..., 0], y[..., 1])  # one draw for all pixels
    found = np.cov(y[:, :, 0, 0].numpy().T)
    np.testing.assert_allclose(found, 0.04 * covariance, atol=5 * (2 / 6000) ** 0.5 * 0.04 * covariance.max())


def test_augment_works_in_training_only_on_images_of_several_members(pictures):
    module = Augment(partial(augmentation.flip, probability=1.0), partial(augmentation.crop, size=(3, 4)))
    x = pictures.reshape(5, 3, 1, 7, 9)  # five rows of three members with one channel
    assert module(x).shape == (5, 3, 1, 3, 4)
    assert module.eval()(x) is x
    assert torch.equal(Augment(partial(augmentation.flip, probability=1.0))(x), x.flip(-1))
