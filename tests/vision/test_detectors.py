import shutil

import pytest
import torch

from deepstat.datasets.scenes import digit_scenes
from deepstat.vision import detectors, rcnn
from deepstat.vision.detectors import RECIPES, WEIGHTS
from deepstat.vision.proposals import connected_components
from helpers import refuses

every_detector = pytest.mark.parametrize("name", list(RECIPES))


@every_detector
def test_weights_are_small_and_recorded(name):
    file = WEIGHTS / f"{name}.pt"
    assert 50_000 < file.stat().st_size < 1_000_000
    record = detectors.records()[name]
    assert record["steps"] == RECIPES[name].steps
    assert record["scenes"] == detectors.TRAINING
    assert set(record) == {"steps", "seed", "scenes", "validation mAP", "test mAP"}


@pytest.mark.slow
@every_detector
def test_the_recorded_score_is_that_of_the_weights(name):
    model = detectors.load(name)
    assert not model.training
    scenes = digit_scenes(detectors.HELD_OUT, "test")
    recorded = detectors.records()[name]["test mAP"]
    assert detectors.score(name, model, scenes) == pytest.approx(recorded, abs=0.005)  # another CPU rounds otherwise


@pytest.mark.slow
@every_detector
def test_a_loaded_detector_finds_digits(name):
    scenes = digit_scenes(12, "test", seed=5)
    assert detectors.score(name, detectors.load(name), scenes) > 0.6


def test_loading_leaves_the_random_numbers_alone():
    before = torch.random.get_rng_state()
    detectors.load("yolo")
    assert torch.equal(before, torch.random.get_rng_state())
    with refuses(ValueError, "name must be one of rcnn, sppnet, .*, got 'dpm'"):
        detectors.load("dpm")


@pytest.mark.slow
def test_r_cnns_last_stages_as_buffers_are_those_of_the_library():
    model = detectors.RECIPES["rcnn"].build()
    scenes = digit_scenes(60, "train")
    proposals = detectors.propose(scenes.images)
    model.fit(scenes, proposals)
    regions = [torch.cat(pair) for pair in zip(proposals, scenes.boxes, strict=True)]
    heads = rcnn.fit_heads(rcnn.describe_all(model.network, scenes.images, regions), scenes, proposals)
    some = digit_scenes(5, "test")
    boxes = [connected_components(image) for image in some.images]
    expected = rcnn.detect(heads, rcnn.describe_all(model.network, some.images, boxes), boxes, 64, 64)
    for a, b in zip(model.detect(some.images), expected, strict=True):
        torch.testing.assert_close(a.boxes, b.boxes, rtol=0, atol=1e-2)
        torch.testing.assert_close(a.scores, b.scores, rtol=0, atol=1e-4)
        assert torch.equal(a.labels, b.labels)


@pytest.mark.slow
@every_detector
def test_make_writes_what_load_reads(name, tmp_path, monkeypatch):
    monkeypatch.setattr(detectors, "HELD_OUT", 8)
    shutil.copy(WEIGHTS / "rcnn.pt", tmp_path)  # SPPNet has R-CNN's convolutions
    monkeypatch.setattr(detectors, "WEIGHTS", tmp_path)
    record = detectors.make(name, seed=1, scenes=40, steps=3, folder=tmp_path)
    assert record == {"steps": 3, "seed": 1, "scenes": 40} | detectors.measure(name, detectors.load(name))
    assert detectors.records() == {name: record}
