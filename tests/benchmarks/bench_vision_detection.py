"""NMS and RoI align against vectorized references, and how they grow; prints ratios, asserts nothing.

Run: ``python tests/benchmarks/bench_vision_detection.py``
"""

from functools import partial

import torch
from timing import compare
from torch import Tensor
from torch.nn import functional

from deepstat import device, seeding
from deepstat.vision import boxes, roi_pooling

RUNS = 5


def matrix_nms(candidates: Tensor, scores: Tensor, threshold: float) -> Tensor:
    """The usual reference: the matrix of all overlaps first, then one row after another."""
    order = scores.argsort(descending=True, stable=True)
    overlaps = boxes.iou(candidates[order], candidates[order]) > threshold
    alive = torch.ones(len(order), dtype=torch.bool, device=scores.device)
    for i in range(len(order)):
        if alive[i]:
            alive[i + 1 :] &= ~overlaps[i, i + 1 :]
    return order[alive]


def sampled_align(features: Tensor, rois: Tensor, size: int, stride: float, samples: int = 2) -> Tensor:
    """RoI align by one call of PyTorch's ``grid_sample``, of one map."""
    step = (torch.arange(size * samples, device=rois.device) + 0.5) / (size * samples)
    h, w = features.shape[2:]
    x = (rois[:, None, 0] + (rois[:, None, 2] - rois[:, None, 0]) * step) / stride / w * 2 - 1  # (r, points)
    y = (rois[:, None, 1] + (rois[:, None, 3] - rois[:, None, 1]) * step) / stride / h * 2 - 1
    r, points = x.shape
    grid = torch.stack([x[:, None].expand(r, points, points), y[:, :, None].expand(r, points, points)], dim=-1)
    sampled = functional.grid_sample(
        features.expand(r, -1, -1, -1), grid, padding_mode="border", align_corners=False
    )
    return functional.avg_pool2d(sampled, samples)


def main() -> None:
    torch.set_num_threads(1)
    where = device.pick()
    seeding.seed_everything(0)
    for count in (100, 1_000, 10_000):
        corner = 1000 * torch.rand(count, 2, device=where)
        candidates = torch.cat([corner, corner + 20 + 80 * torch.rand(count, 2, device=where)], dim=1)
        scores = torch.rand(count, device=where)
        works = [partial(nms, candidates, scores, 0.5) for nms in (boxes.nms, matrix_nms)]
        ours, theirs = compare(works, where, RUNS)
        print(f"NMS of {count:6,} boxes: {ours / theirs:5.2f} of the matrix version's time, {1e6 * ours / count:6.2f} µs a box")
    for side in (8, 32, 64):
        features = torch.randn(1, 64, side, side, device=where)
        corner = 4 * side * torch.rand(50, 2, device=where)
        rois = torch.cat([corner, corner + 4 * side], dim=1)
        image = torch.zeros(50, dtype=torch.long, device=where)
        works = (partial(roi_pooling.roi_align, features, rois, image, 7, 8), partial(sampled_align, features, rois, 7, 8))
        ours, theirs = compare(works, where, RUNS)
        print(f"RoI align of 50 regions on {side:2} x {side:2} cells: {ours / theirs:5.2f} of grid_sample's time")


if __name__ == "__main__":
    main()
