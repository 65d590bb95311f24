"""Compares the speed and memory of Mask R-CNN with those of mmdetection and torchvision.

Command, with a folder of mmdetection 3.3 that runs on a CPU through a module `openmmlab`, as in
`tests/detection/make_golden_detections.py`, and the Python of an environment whose torchvision has
operators that are compiled for its torch, as those of `pip install torch torchvision` on PyPI are:

    PYTHONPATH=FOLDER python benchmarks/detection_speed.py --torch PYTHON

It takes a few minutes on two cores. Each contestant is a process of its own, which stays alive; in
each round, every one finds the objects of one picture in turn, so that all see the same machine.
This package and mmdetection have ConvNeXt-T with the same random weights, torchvision ResNet-50. A
contestant that cannot be imported is left out, and why is written. The time is split into trunk,
pyramid, proposals, and heads (boxes and masks of up to 100 detections, not pasted). mmdetection's
RoIAlign and suppression are those of torchvision, since mmcv's are not compiled in the stand-in.
Writes `results/detection_speed.json`: median seconds of each part, the range of the sum, the peak
memory, and that above the imports. The versions in it are those of this environment, not of
PYTHON's.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
from machine import Load, description

RESULTS = Path(__file__).parent / "results" / "detection_speed.json"
LIBRARIES = ("keras-convnext", "keras", "tensorflow", "torch", "torchvision", "numpy")
PARTS = ("trunk", "pyramid", "proposals", "heads")
Run = Callable[[np.ndarray], tuple[list[float], int]]  # seconds of each part, and detections
IMPORTED: list[float] = []  # the peak memory after the imports of a contestant


def peak_mb() -> float:
    """Returns the most memory that this process has had."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def ours(weights: Path) -> Run:
    """Runs the fused network of this package, and the beginnings of it."""
    import keras
    import tensorflow as tf

    import keras_convnext
    from keras_convnext.export import fuse

    IMPORTED.append(peak_mb())
    network = fuse(keras_convnext.load_model(weights))
    ends = [
        [network.get_layer(f"norm_{stage}").output for stage in range(4)],
        network.get_layer("pyramid").output,
        network.get_layer("propose").output,
        network.output,
    ]
    calls = [tf.function(keras.Model(network.input, end), reduce_retracing=True) for end in ends]

    def run(picture: np.ndarray) -> tuple[list[float], int]:
        height, width = picture.shape[:2]
        padding = [(0, 0), (0, -height % 32), (0, -width % 32), (0, 0)]
        pixels = tf.constant(np.pad(picture[None].astype("float32"), padding))
        inputs = {"images": pixels, "sizes": tf.constant([[height, width]], tf.float32)}
        ended, found = [0.0], {}
        for call in calls:
            began = time.perf_counter()
            found = call(inputs)
            ended.append(time.perf_counter() - began)
        # Each call repeats the parts before.
        return np.diff(ended).tolist(), int(found["num_detections"][0])

    return run


def with_compiled_operators() -> Any:
    """Imports the module `openmmlab` with torchvision's operators in place of its own."""
    from torchvision.ops import nms, roi_align

    with mock.patch("torch.library.Library"):  # it would define operators that are there
        import openmmlab

    def align(features: Any, regions: Any, output: Any, *_: Any, **given: Any) -> None:
        settings = {key: given[key] for key in ("spatial_scale", "sampling_ratio", "aligned")}
        output.copy_(roi_align(features, regions, output.shape[2:], **settings))

    operators = sys.modules["mmcv._ext"]
    operators.nms = lambda boxes, scores, iou_threshold, offset: nms(boxes, scores, iou_threshold)
    operators.roi_align_forward = align
    return openmmlab


def mmdetection(weights: Path) -> Run:
    """Runs mmdetection's network part by part."""
    import torch

    openmmlab = with_compiled_operators()

    IMPORTED.append(peak_mb())
    net = openmmlab.mask_rcnn(proposals=1000, kept=100, score=0.05)
    net.load_state_dict(torch.load(weights, weights_only=True)["state_dict"])
    mean, std = np.float32([123.675, 116.28, 103.53]), np.float32([58.395, 57.12, 57.375])

    def run(picture: np.ndarray) -> tuple[list[float], int]:
        height, width = picture.shape[:2]
        padding = [(0, -height % 32), (0, -width % 32), (0, 0)]
        pixels = openmmlab._channels_first(np.pad((picture - mean) / std, padding)[None])
        sample = openmmlab._sample(height, width)
        sample.set_metainfo({"batch_input_shape": tuple(pixels.shape[2:])})
        ended = [time.perf_counter()]
        with torch.inference_mode():
            maps = net.backbone(pixels)
            ended.append(time.perf_counter())
            maps = net.neck(maps)
            ended.append(time.perf_counter())
            proposals = net.rpn_head.predict(maps, [sample], rescale=False)
            ended.append(time.perf_counter())
            found = net.roi_head.predict_bbox(
                maps, [sample.metainfo], proposals, net.roi_head.test_cfg, rescale=False
            )[0]
            regions = torch.cat([torch.zeros(len(found.bboxes), 1), found.bboxes], 1)
            net.roi_head._mask_forward(maps, regions)
            ended.append(time.perf_counter())
        return np.diff(ended).tolist(), len(found.bboxes)

    return run


def torchvision(weights: Path) -> Run:
    """Runs torchvision's Mask R-CNN on ResNet-50, with random weights, part by part."""
    import torch
    from torchvision.models.detection import maskrcnn_resnet50_fpn
    from torchvision.models.detection.image_list import ImageList

    IMPORTED.append(peak_mb())
    torch.manual_seed(0)
    net = maskrcnn_resnet50_fpn(weights=None, weights_backbone=None).eval()
    torch.nn.init.normal_(net.roi_heads.box_predictor.cls_score.weight, std=1)

    def run(picture: np.ndarray) -> tuple[list[float], int]:
        height, width = picture.shape[:2]
        padding = [(0, -height % 32), (0, -width % 32), (0, 0)]
        scaled = np.pad(picture.astype("float32") / 255, padding)
        pixels = torch.from_numpy(np.moveaxis(scaled, -1, 0)[None].copy())
        images = ImageList(pixels, [(height, width)])
        ended = [time.perf_counter()]
        with torch.inference_mode():
            maps = net.backbone.body(pixels)
            ended.append(time.perf_counter())
            maps = net.backbone.fpn(maps)
            ended.append(time.perf_counter())
            proposals, _ = net.rpn(images, maps)
            ended.append(time.perf_counter())
            found, _ = net.roi_heads(maps, proposals, images.image_sizes)
            ended.append(time.perf_counter())
        return np.diff(ended).tolist(), len(found[0]["boxes"])

    return run


CONTESTANTS = {
    "keras_convnext fused, tf.function": ours,
    "mmdetection": mmdetection,
    "torchvision maskrcnn_resnet50_fpn": torchvision,
}


def make_weights(path: Path) -> None:
    """Saves a Mask R-CNN on ConvNeXt-T with random weights."""
    import keras
    from keras import ops

    from keras_convnext.detection import MaskRCNN, save_detector_weights

    keras.utils.set_random_seed(0)
    model = MaskRCNN("convnext_tiny")
    head = model.get_layer("box_head")
    head.classifier.kernel.assign(ops.convert_to_tensor(head.classifier.kernel) * 100)  # certain
    save_detector_weights(model, path, "openmmlab")


def work(name: str, weights: Path, height: int, width: int) -> None:
    """Finds the objects of a picture for each line of standard input."""
    random = np.random.default_rng(0)
    try:
        run = CONTESTANTS[name](weights)
        picture = random.integers(0, 256, (height, width, 3), np.uint8)
        for _ in range(2):  # compiles
            run(picture)
    except Exception as error:
        print(json.dumps({"failed": f"{type(error).__name__}: {error}"[:300]}), flush=True)
        return
    print(json.dumps({"ready": True}), flush=True)
    for _ in sys.stdin:
        seconds, found = run(picture)
        told = {"seconds": seconds, "detections": found, "peak_mb": peak_mb()}
        print(json.dumps({**told, "imported_mb": IMPORTED[0]}), flush=True)


def start(name: str, weights: Path, options: argparse.Namespace) -> tuple[Any, dict[str, Any]]:
    """Starts a contestant, and returns its process and what it says first."""
    python = sys.executable if CONTESTANTS[name] is ours else options.torch
    command = [python, __file__, "--work", name, "--weights", str(weights),
               "--height", str(options.height), "--width", str(options.width)]  # fmt: skip
    worker = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"},
    )  # fmt: skip
    return worker, _answer(worker)


def _answer(worker: Any) -> dict[str, Any]:
    for line in worker.stdout:
        if line.startswith("{"):
            return json.loads(line)
    return {"failed": "The process ended"}


def measured(options: argparse.Namespace) -> dict[str, Any]:
    """Asks every contestant in turn, and returns the medians."""
    load = Load()
    with tempfile.TemporaryDirectory() as folder:
        weights = Path(folder) / "mask_rcnn.pth"
        command = [sys.executable, __file__, "--weights", str(weights), "--make"]
        subprocess.run(command, check=True)
        started = {name: start(name, weights, options) for name in CONTESTANTS}
        answers: dict[str, list[dict[str, Any]]] = {}
        for _ in range(options.rounds):
            for name, (worker, first) in started.items():
                if "failed" not in first:
                    print(file=worker.stdin, flush=True)
                    answers.setdefault(name, []).append(_answer(worker))
        for worker, _ in started.values():
            worker.communicate()
    rows = []
    for name, told in answers.items():
        sums = [sum(each["seconds"]) for each in told]
        parts = np.median([each["seconds"] for each in told], axis=0).round(3).tolist()
        rows.append({
            "contestant": name,
            "seconds": round(statistics.median(sums), 3),
            "range": [round(min(sums), 3), round(max(sums), 3)],
            **dict(zip(PARTS, parts)),
            "detections": told[-1]["detections"],
            "peak_mb": round(told[-1]["peak_mb"]),
            "above_imports_mb": round(told[-1]["peak_mb"] - told[-1]["imported_mb"]),
        })  # fmt: skip
    left_out = {name: first["failed"] for name, (_, first) in started.items() if "failed" in first}
    return {
        "machine": description(LIBRARIES),
        "load": load.so_far(),
        "picture": f"{options.width} x {options.height} px",
        "rounds": options.rounds,
        "rows": rows,
        "left_out": left_out,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--height", type=int, default=800)
    parser.add_argument("--width", type=int, default=1333)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--torch", default=sys.executable, help="Python for the others")
    parser.add_argument("--output", type=Path, default=RESULTS)
    parser.add_argument("--weights", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--make", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--work", choices=CONTESTANTS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.make:
        make_weights(options.weights)
    elif options.work:
        work(options.work, options.weights, options.height, options.width)
    else:
        found = measured(options)
        options.output.write_text(json.dumps(found, indent=2) + "\n")
        print(json.dumps(found["rows"], indent=2))


if __name__ == "__main__":
    main()
