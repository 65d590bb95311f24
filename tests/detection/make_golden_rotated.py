"""Makes the golden arrays of `test_rotated_network.py` with mmrotate, which the tests do not need.

Command: `python tests/detection/make_golden_rotated.py FOLDER`, where FOLDER contains what
`make_golden_detections.py` needs, and mmrotate 1.0. Writes `golden/`: a toy of the published
network (KLD, le90) as mmengine saves it, what it finds in two images, its training losses, and
what mmrotate's ATSS assigns.
"""

import os
import sys
from pathlib import Path

import numpy as np
import torch

GOLDEN = Path(__file__).with_name("golden")
TOY = {"depths": (1, 1, 1, 1), "dims": (8, 8, 16, 16), "channels": 8, "classes": 5}
SIZES = (64, 96), (96, 64)
FILE = "rotated_retinanet.pth"
THRESHOLD, KEPT = 0.3, 40


def image(index):
    """A normalized image (height, width, 3)."""
    return np.random.default_rng(index).normal(size=(*SIZES[index], 3)).astype("float32")


def objects(index):
    """Boxes in le90, and labels, of three or two objects in an image."""
    random, (height, width) = np.random.default_rng(20 + index), SIZES[index]
    count = 3 - index
    centers = random.uniform(0.25, 0.75, (count, 2)) * (width, height)
    sides = np.sort(random.uniform(10, 50, (count, 2)))[:, ::-1]
    angles = random.uniform(-np.pi / 2, np.pi / 2, (count, 1))
    boxes = np.concatenate([centers, sides, angles], axis=1).astype("float32")
    return boxes, random.integers(0, TOY["classes"], count)


def network():
    import openmmlab

    openmmlab.rotated_retinanet()  # makes mmrotate importable
    import mmrotate
    from mmengine.config import Config
    from mmrotate.registry import MODELS

    folder = f"{os.path.dirname(mmrotate.__file__)}/.mim/configs/kld"
    path = f"{folder}/rotated-retinanet-rbox-le90_r50_fpn_kld-stable_adamw-1x_dota.py"
    model = Config.fromfile(path).model
    model.backbone = openmmlab._backbone(TOY["depths"], TOY["dims"])
    model.neck.in_channels, model.neck.out_channels = list(TOY["dims"]), TOY["channels"]
    head = model.bbox_head
    head.in_channels = head.feat_channels = TOY["channels"]
    head.num_classes = TOY["classes"]
    head.anchor_generator.angle_version = None  # as in the version that trained the published one
    model.test_cfg.nms_pre, model.test_cfg.max_per_img = 100_000, KEPT
    model.test_cfg.score_thr = THRESHOLD
    # Its way of telling classes apart, shifting them, fails for boxes with negative coordinates.
    model.test_cfg.nms.class_agnostic = True
    net = openmmlab.randomize(MODELS.build(model).eval(), 0)
    with torch.no_grad():
        for tensor in net.state_dict().values():
            if tensor.is_floating_point():
                tensor.copy_(tensor.half().float())  # exactly what the file holds
    return net


def samples_of(index):
    import openmmlab
    from mmengine.structures import InstanceData
    from mmrotate.structures.bbox import RotatedBoxes

    boxes, labels = objects(index)
    sample = openmmlab._sample(*SIZES[index])
    sample.gt_instances = InstanceData(
        bboxes=RotatedBoxes(torch.tensor(boxes)), labels=torch.tensor(labels)
    )
    sample.ignored_instances = InstanceData(
        bboxes=RotatedBoxes(torch.zeros(0, 5)), labels=torch.zeros(0, dtype=torch.long)
    )
    return sample


def main():
    import openmmlab
    from mmdet.models.task_modules import AnchorGenerator
    from mmengine.structures import InstanceData

    openmmlab.rotated_retinanet()
    from mmrotate.registry import TASK_UTILS
    from mmrotate.structures.bbox import RotatedBoxes

    net = network()
    arrays = {}
    for index in range(2):
        boxes, scores, labels = openmmlab.detect(net, image(index))
        arrays |= {f"{index} boxes": boxes, f"{index} scores": scores, f"{index} labels": labels}
        net.train()
        with torch.no_grad():
            losses = net.loss(openmmlab._channels_first(image(index)[None]), [samples_of(index)])
        net.eval()
        arrays[f"{index} losses"] = np.float32([
            sum(map(float, losses[name])) for name in ("loss_cls", "loss_bbox")
        ])  # fmt: skip
        assigner = TASK_UTILS.build({
            "type": "RotatedATSSAssigner", "topk": 9,
            "iou_calculator": {"type": "RBboxOverlaps2D"},
        })  # fmt: skip
        generator = AnchorGenerator(
            strides=[8, 16, 32, 64, 128], ratios=[1.0], octave_base_scale=4, scales_per_octave=1
        )
        height, width = SIZES[index]
        grids = [(-(-height // s), -(-width // s)) for s in (8, 16, 32, 64, 128)]
        corners = generator.grid_priors(grids, device="cpu")
        own = torch.cat(corners)
        anchors = torch.cat(
            [(own[:, :2] + own[:, 2:]) / 2, own[:, 2:] - own[:, :2], torch.zeros(len(own), 1)], 1
        )
        found = assigner.assign(
            InstanceData(priors=RotatedBoxes(anchors)),
            [len(each) for each in corners],
            samples_of(index).gt_instances,
        )
        arrays[f"{index} atss"] = found.gt_inds.numpy().astype("int32") - 1
    halved = {
        key: tensor.half() if tensor.is_floating_point() else tensor
        for key, tensor in net.state_dict().items()
    }
    torch.save({"meta": {"CLASSES": None}, "state_dict": halved}, GOLDEN / FILE)
    np.savez_compressed(GOLDEN / "rotated.npz", **arrays)
    for name, value in arrays.items():
        print(name, value.shape, value[:3] if value.ndim == 1 else "")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        raise SystemExit(__doc__)
    sys.path.insert(0, sys.argv[1])
    main()
