"""Makes the golden arrays of `test_detectors.py` with mmdetection, which the tests do not need.

Command: `python tests/detection/make_golden_detections.py FOLDER`, where FOLDER contains mmengine
0.10, mmcv-lite 2.1, mmdetection 3.3 and mmpretrain 1.2, whose detectors run on a CPU without
compiled operators through a module `openmmlab` in `PYTHONPATH`, which stands in for them. Writes
`golden/`: toys of both detectors as mmengine saves them, and what they find in three images of
different sizes: boxes, scores, labels, and masks as the heads return them; and every training loss
of the first two images, with all candidates sampled.
"""

import sys
from pathlib import Path

import numpy as np
import torch

GOLDEN = Path(__file__).with_name("golden")
TOY = {"depths": (1, 1, 1, 1), "dims": (8, 8, 16, 16), "channels": 8, "hidden": 16, "classes": 5}
LIMITS = {"proposals": 50, "kept": 10}
SIZES = (96, 128), (64, 160), (120, 90)
PADDED = 128, 160
REGIONS = 120  # more than there are candidates, and a quarter more than there are positive ones


def image(index):
    """A normalized image (height, width, 3)."""
    return np.random.default_rng(index).normal(size=(*SIZES[index], 3)).astype("float32")


def found_in(net, index, arrays, name):
    import openmmlab

    height, width = SIZES[index]
    padding = [(0, PADDED[0] - height), (0, PADDED[1] - width), (0, 0)]
    pixels = openmmlab._channels_first(np.pad(image(index), padding)[None])
    sample = openmmlab._sample(height, width)
    sample.set_metainfo({"batch_input_shape": PADDED, "pad_shape": PADDED})
    metas = [sample.metainfo]
    with torch.no_grad():
        maps = net.extract_feat(pixels)
        proposals = net.rpn_head.predict(maps, [sample], rescale=False)
        found = net.roi_head.predict_bbox(
            maps, metas, proposals, net.roi_head.test_cfg, rescale=False
        )[0]
        heads = net.roi_head.mask_head
        rois = torch.cat([torch.zeros(len(found.bboxes), 1), found.bboxes], 1)
        staged = isinstance(heads, torch.nn.ModuleList)
        masks = [
            net.roi_head._mask_forward(*((stage, maps, rois) if staged else (maps, rois)))
            for stage in range(len(heads) if staged else 1)
        ]
        own = torch.arange(len(rois)), found.labels
        masks = torch.stack([each["mask_preds"].sigmoid()[own] for each in masks]).mean(0)
    for key, value in (("boxes", found.bboxes), ("scores", found.scores),
                       ("labels", found.labels), ("masks", masks.half())):  # fmt: skip
        arrays[f"{name} {index} {key}"] = value.numpy()


def objects(index):
    """Boxes, labels and elliptic masks of one to three objects in an image."""
    random, (height, width) = np.random.default_rng(10 + index), SIZES[index]
    centers = random.uniform(0.3, 0.7, (3 - index, 2)) * (width, height)
    halves = random.uniform(0.15, 0.28, (3 - index, 2)) * (width, height)
    boxes = np.concatenate([centers - halves, centers + halves], axis=1).astype("float32")
    rows, columns = np.mgrid[:height, :width] + 0.5
    masks = [
        ((columns - x) / w) ** 2 + ((rows - y) / h) ** 2 < 1
        for (x, y), (w, h) in zip(centers, halves)
    ]
    return boxes, random.integers(0, TOY["classes"], 3 - index), np.array(masks, np.uint8)


def losses_of(net, arrays, name):
    import openmmlab
    from mmdet.structures.mask import BitmapMasks
    from mmengine.structures import InstanceData

    images, samples = [], []
    for index in range(2):
        height, width = SIZES[index]
        padding = (0, PADDED[0] - height), (0, PADDED[1] - width)
        images.append(np.pad(image(index), (*padding, (0, 0))))
        boxes, labels, masks = objects(index)
        sample = openmmlab._sample(height, width)
        sample.set_metainfo({"batch_input_shape": PADDED})
        sample.gt_instances = InstanceData(
            bboxes=torch.tensor(boxes),
            labels=torch.tensor(labels),
            masks=BitmapMasks(np.pad(masks, ((0, 0), *padding)), *PADDED),
        )
        sample.ignored_instances = InstanceData(
            bboxes=torch.zeros(0, 4), labels=torch.zeros(0, dtype=torch.long)
        )
        samples.append(sample)
    net.rpn_head.sampler.num = 100_000
    samplers = net.roi_head.bbox_sampler
    for sampler in samplers if isinstance(samplers, list) else [samplers]:
        sampler.num = REGIONS
    net.train()
    with torch.no_grad():
        found = net.loss(openmmlab._channels_first(np.stack(images)), samples)
    net.eval()
    values = [
        float(sum(value)) if isinstance(value, list) else float(value)
        for key, value in found.items()
        if "loss" in key
    ]
    arrays[f"{name} losses"] = np.array(values, "float32")


def main():
    import openmmlab

    GOLDEN.mkdir(exist_ok=True)
    arrays = {}
    for name in ("mask_rcnn", "cascade_mask_rcnn"):
        net = getattr(openmmlab, name)(**TOY, **LIMITS)
        openmmlab.randomize(net, seed=0)
        with torch.no_grad():
            for tensor in (*net.parameters(), *net.buffers()):
                if tensor.is_floating_point():
                    tensor.copy_(tensor.half().float())  # exactly what the file holds
        halved = {key: tensor.half() if tensor.is_floating_point() else tensor
                  for key, tensor in net.state_dict().items()}  # fmt: skip
        torch.save({"meta": {"CLASSES": None}, "state_dict": halved}, GOLDEN / f"{name}.pth")
        for index in range(len(SIZES)):
            found_in(net, index, arrays, name)
        losses_of(net, arrays, name)
    np.savez_compressed(GOLDEN / "detections.npz", **arrays)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        raise SystemExit(__doc__)
    sys.path.insert(0, sys.argv[1])
    main()
