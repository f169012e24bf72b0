import torch
from skimage import data

from deepstat.datasets import faces


def test_faces_are_the_librarys_in_its_order():
    people = faces.faces()
    assert people.x.shape == (200, 1, 25, 25)
    assert (people.x.dtype, people.y.dtype) == (torch.float32, torch.int64)
    assert (people.x.min(), people.x.max()) == (0, 1)
    torch.testing.assert_close(people.x[:, 0].double(), torch.tensor(data.lfw_subset()), rtol=0, atol=1e-7)
    assert people.y.tolist() == [1] * 100 + [0] * 100  # "100 first images are faces"
    assert people.classes == ("background", "face")
    assert all([people.source, people.licence])


def test_faces_look_like_faces_and_background_has_black_corners():
    people = faces.faces()
    face = people.x[people.y == 1].mean(0)[0]
    middle = face[:, 5:20]  # without the hair at the sides, lit from one of them
    assert (middle - middle.flip(1)).abs().mean() < (middle - middle.flip(0)).abs().mean()  # upright, rather symmetric
    assert face[8:11, 4:9].mean() < face[14:17, 4:9].mean()  # eyes are darker than cheeks
    black = (people.x == 0).flatten(1).any(1)
    assert black[people.y == 1].float().mean() < 0.05
    assert black[people.y == 0].float().mean() > 0.5
