"""Measures what 8-bit integers cost a segmenter in mean intersection over union.

Command: `python benchmarks/quantized_segmenter.py WEIGHTS DATA`, where WEIGHTS is a segmenter that
`train` wrote, and DATA the folder of images and masks. Exports it in float32 and int8 to each
format that has int8, calibrated on images of the split "train", and scores every artifact on the
split "val", in windows of the size of the calibration. Writes `results/segmentation/int8.json`
after each artifact.
"""

import argparse
import dataclasses
import json
import tempfile
import time
from pathlib import Path

import numpy as np
from machine import Load, description

RESULTS = Path(__file__).parent / "results" / "segmentation" / "int8.json"
LIBRARIES = ("keras-convnext", "keras", "tensorflow", "onnxruntime", "openvino", "ai-edge-litert")
FORMATS = ("openvino", "litert", "onnx")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("weights", type=Path)
    parser.add_argument("data")
    parser.add_argument(
        "--ignored", type=int, action="append", help="label that is not scored; as recorded if none"
    )
    parser.add_argument("--formats", nargs="+", choices=FORMATS, default=FORMATS)
    parser.add_argument("--limit", type=int, help="score the first images only")
    parser.add_argument("--output", type=Path, default=RESULTS)
    options = parser.parse_args()

    import keras_convnext
    from keras_convnext.export import Artifact, export
    from keras_convnext.pretrained.record import read_record
    from keras_convnext.segmentation import open_pairs, predict_classes
    from keras_convnext.segmentation.labels import recorded_labels
    from keras_convnext.segmentation.prediction import windows_of
    from keras_convnext.segmentation.scores import Counts, count, scores_of

    load = Load()
    model = keras_convnext.load_model(options.weights)
    recorded = read_record(options.weights).preprocessing
    windows, labels = windows_of(recorded), recorded_labels(recorded)
    if options.ignored:
        labels = dataclasses.replace(labels, ignored=tuple(options.ignored))
    training, held_out = (
        open_pairs(options.data, split, labels=labels) for split in ("train", "val")
    )
    photographs = Path(training.pairs.images[0]).parent
    number = min(held_out.size, options.limit or held_out.size)
    rows = []
    for name in options.formats:
        for dtype in ("float32", "int8"):
            with tempfile.TemporaryDirectory() as folder:
                target = Path(folder) / "artifact"
                export(model, target, name, dtype=dtype, size=windows.crop, images=photographs,
                       names=held_out.classes)  # fmt: skip
                artifact = Artifact(target)
                size = sum(path.stat().st_size for path in target.rglob("*") if path.is_file())
                counts, began = Counts.none(len(held_out.classes)), time.perf_counter()
                for index in range(number):
                    image, labels = held_out.arrays(index)
                    found = predict_classes(
                        lambda pixels, run=artifact: run(pixels.astype(np.float32))["logits"],
                        image, scale=windows.scale, crop=windows.crop, stride=windows.stride,
                    )  # fmt: skip
                    counts += count(found, labels, len(held_out.classes), ignored=-1)
                seconds = time.perf_counter() - began
            rows.append({
                "format": name,
                "dtype": dtype,
                "mean_iou": round(scores_of(counts).mean_iou, 4),
                "images": number,
                "images_per_second": round(number / seconds, 2),
                "megabytes": round(size / 1e6, 1),
            })  # fmt: skip
            print(*rows[-1].values(), sep="\t", flush=True)
            found = {"machine": description(LIBRARIES), "load": load.so_far(), "rows": rows}
            options.output.parent.mkdir(parents=True, exist_ok=True)
            options.output.write_text(json.dumps(found, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
