import jaxtyping
import pytest
import torch

from deepstat.datasets.scenes import digit_scenes
from deepstat.vision import rcnn
from deepstat.vision.backbone import Backbone
from deepstat.vision.spatial_pyramid import spatial_pyramid
from deepstat.vision.sppnet import SPPNet


def narrow():
    torch.manual_seed(0)
    return SPPNet(Backbone(widths=(4, 4, 8, 8, 8)), 10, width=64)


def regions():
    return torch.rand(2, 1, 64, 72), torch.tensor([[0.0, 0, 20, 20], [10, 5, 40, 60], [2, 2, 12, 12]]), torch.tensor([0, 0, 1])


def test_shapes_devices_dtypes(device):
    model = narrow().to(device)
    images, rois, image = (x.to(device) for x in regions())
    for dtype in (torch.float32, torch.bfloat16):
        scores = model.to(dtype)(images.to(dtype), rois, image)
        assert scores.shape == (3, 11)
        assert scores.dtype == dtype
        assert scores.isfinite().all()


def test_the_description_is_the_pyramid_on_the_map_of_the_whole_image():
    model = narrow().eval()
    images, rois, image = regions()
    expected = spatial_pyramid(model.backbone(images), rois, image, (1, 2, 4), 8)
    assert (model.describe(images, rois, image) == expected).all()
    assert expected.shape == (3, 8 * 21)


@pytest.mark.slow
def test_training_leaves_the_convolutions_and_their_averages_alone():
    scenes = digit_scenes(4, "train", most=2)
    some = [truth + 9 for truth in scenes.boxes]
    model = narrow()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    first = rcnn.fine_tune(model, scenes, some, steps=1, seed=0, batch=4)
    dense = [*model.hidden.parameters(), *model.scores.parameters()]
    assert all((p.grad != 0).any() for p in dense)
    assert all(p.grad is None for p in model.backbone.parameters())
    rcnn.fine_tune(model, scenes, some, steps=600, seed=0, batch=4, learning_rate=3e-2)
    last = rcnn.fine_tune(model, scenes, some, steps=1, seed=0, batch=4, learning_rate=1e-9)
    assert last < 0.1 * first
    for name, value in model.state_dict().items():
        same = bool((value.cpu() == before[name]).all())
        assert same == name.startswith("backbone"), name


@pytest.mark.slow
def test_compilation(monkeypatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # the checks cannot be traced
    torch.compiler.reset()
    model, fixed = narrow().eval(), regions()
    torch.testing.assert_close(torch.compile(model, backend="eager", fullgraph=True)(*fixed), model(*fixed))
