"""Makes the golden arrays of `test_upernet.py` with mmsegmentation, which the tests do not need.

Command: `python tests/segmentation/make_golden_arrays.py FOLDER`, where FOLDER contains mmengine
0.10, mmcv-lite 2.1, mmsegmentation 1.2.2 and mmpretrain 1.2, whose heads run on a CPU without
compiled operators through a module `openmmlab` in `PYTHONPATH`, which stands in for them. Writes
`golden/`: a toy UperNet as mmsegmentation saves it; its logits at a quarter of the size and at the
size of the image; those of its auxiliary head; and the averages of overlapping windows.
"""

import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch
from torch.nn import functional

GOLDEN = Path(__file__).with_name("golden")
DEPTHS, DIMS, CHANNELS, CLASSES = (1, 1, 2, 1), (8, 16, 24, 32), 16, 5
SIZES = (33, 47), (96, 64)
CROP, STRIDE = 40, 27  # of windows in the larger image


def images(size):
    """Normalized images (1, height, width, 3)."""
    return np.random.default_rng(0).normal(size=(1, *size, 3)).astype("float32")


def main():
    import openmmlab

    net = openmmlab.upernet(DEPTHS, DIMS, CHANNELS, CLASSES)
    openmmlab.randomize(net, seed=0)
    with torch.no_grad():
        for tensor in (*net.parameters(), *net.buffers()):
            if tensor.is_floating_point():
                tensor.copy_(tensor.half().float())  # exactly what the file holds
    GOLDEN.mkdir(exist_ok=True)
    halved = {name: tensor.half() if tensor.is_floating_point() else tensor
              for name, tensor in net.state_dict().items()}  # fmt: skip
    torch.save({"meta": {"CLASSES": list("abcde")}, "state_dict": halved}, GOLDEN / "upernet.pth")
    arrays = {}
    for size in SIZES:
        with torch.no_grad():
            maps = net.backbone(torch.from_numpy(images(size)).permute(0, 3, 1, 2))
            logits, auxiliary = net.decode_head(maps), net.auxiliary_head(maps)
            whole = functional.interpolate(logits, size=size, mode="bilinear", align_corners=False)
        found = {"logits": logits, "whole": whole, "auxiliary": auxiliary}
        for name, array in found.items():
            arrays[f"{name} {size[0]}"] = array.permute(0, 2, 3, 1).numpy()
    del arrays[f"whole {SIZES[-1][0]}"]  # half of the file
    net.test_cfg = SimpleNamespace(crop_size=(CROP, CROP), stride=(STRIDE, STRIDE))
    size = SIZES[-1]
    shapes = dict.fromkeys(("ori_shape", "img_shape", "pad_shape"), size)
    with torch.no_grad():
        pixels = torch.from_numpy(images(size)).permute(0, 3, 1, 2)
        windows = net.slide_inference(pixels, [{**shapes, "padding_size": [0] * 4}])
    arrays["windows"] = windows.permute(0, 2, 3, 1).numpy().astype("float16")
    np.savez_compressed(GOLDEN / "upernet.npz", **arrays)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        raise SystemExit(__doc__)
    sys.path.insert(0, sys.argv[1])
    main()
