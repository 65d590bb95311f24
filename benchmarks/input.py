"""Measures the images per second of the training and evaluation input, compared with timm's.

Command: `python benchmarks/input.py FOLDER [--rounds 5] [--images 1024] [--json]`. Takes a few
minutes. FOLDER contains JPEGs of ImageNet's typical size (500 x 375), with or without subfolders.
Ours is `training_image` and `evaluation_image` in a tf.data pipeline with one parallel call per
core, as in training and evaluation; timm's is its transform with the same settings in a PyTorch
DataLoader with worker processes. They alternate in one run. Reports the median speeds, and the
median of the ratios over the rounds. Keras' RandAugment, which ours replaces, is measured on the
same crops. Writes `benchmarks/results/input.json`, or the file of `--results`.
"""

import argparse
import json
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from machine import Load, description

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

RESULTS = Path(__file__).parent / "results" / "input.json"
LIBRARIES = (
    "keras-convnext", "tensorflow", "keras", "keras-cv", "torch", "torchvision", "timm", "pillow",
)  # fmt: skip
RAND_AUGMENT = "rand-m9-mstd0.5-inc1"
SIZE = 224
FEWEST = 6  # batches; with fewer, the prefetched ones would distort the result


def timm_loaders(files: list[str], options: argparse.Namespace) -> dict[str, Iterable]:
    import torch

    sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
    from torch_reference import declare_torchvision_operators

    declare_torchvision_operators()
    from PIL import Image, ImageOps
    from timm.data import create_transform

    # At magnitude 10 no bits are left, which Pillow 13 rejects with an error.
    posterize = ImageOps.posterize
    ImageOps.posterize = lambda image, bits: (
        posterize(image, bits) if bits else Image.new("RGB", image.size)
    )

    class Files(torch.utils.data.Dataset):
        def __init__(self, transform: Callable):
            self.transform = transform

        def __len__(self):
            return options.images

        def __getitem__(self, index: int):
            return self.transform(Image.open(files[index % len(files)]).convert("RGB"))

    transforms = {
        "training": create_transform(
            SIZE, is_training=True, auto_augment=RAND_AUGMENT, re_prob=0.25, re_mode="pixel",
            interpolation="bicubic",
        ),
        "evaluation": create_transform(SIZE, interpolation="bicubic", crop_pct=0.875),
    }  # fmt: skip
    return {
        kind: torch.utils.data.DataLoader(
            Files(transform), options.batch, num_workers=options.workers, persistent_workers=True
        )
        for kind, transform in transforms.items()
    }


def our_datasets(files: list[str], options: argparse.Namespace) -> dict[str, Iterable]:
    import tensorflow as tf

    from keras_convnext.classification.augmentation import training_image
    from keras_convnext.data.images import evaluation_image
    from keras_convnext.data.source import untuned

    def dataset(images: int, example: Callable, change: Callable | None = None):
        repeated = [files[i % len(files)] for i in range(images)]
        numbered = tf.data.Dataset.from_tensor_slices(repeated).enumerate()
        batches = numbered.map(
            lambda number, file: example(number, tf.io.read_file(file)),
            num_parallel_calls=tf.data.AUTOTUNE,
        ).batch(options.batch)
        batches = batches.map(change, tf.data.AUTOTUNE) if change else batches
        return batches.prefetch(2).with_options(untuned())

    def crop(number, encoded):
        return training_image(
            encoded, tf.stack([1, number]), SIZE, rand_augment=None, random_erasing=0.0
        )

    datasets = {
        "training": dataset(
            options.images,
            lambda number, encoded: training_image(encoded, tf.stack([1, number]), SIZE),
        ),
        "evaluation": dataset(options.images, lambda _, encoded: evaluation_image(encoded, SIZE)),
        "crop and flip": dataset(options.images, crop),
    }
    # These are slow, so fewer images are enough.
    few = max(options.images // 4, FEWEST * options.batch)
    for name, layer in rand_augment_layers().items():
        datasets[f"crop, flip and {name}"] = dataset(few, crop, layer)
    return datasets


def rand_augment_layers() -> dict[str, Callable]:
    import keras

    layers: dict[str, Callable] = {}
    if hasattr(keras.layers, "RandAugment"):
        layer = keras.layers.RandAugment(value_range=(0, 255), num_ops=2, factor=0.9)
        layers["keras RandAugment"] = lambda images: layer(images, training=True)
    try:
        import keras_cv
    except ImportError:
        return layers
    cv_layer = keras_cv.layers.RandAugment((0, 255), augmentations_per_image=2, magnitude=0.9)
    return {**layers, "keras_cv RandAugment": lambda images: cv_layer(images, training=True)}


def images_per_second(batches: Iterable) -> float:
    """Measures all but the first batch, which starts the workers and builds the graph."""
    iterator = iter(batches)
    next(iterator)
    began = time.perf_counter()
    count = sum(len(batch) for batch in iterator)
    return count / (time.perf_counter() - began)


def measure(files: list[str], options: argparse.Namespace) -> dict:
    theirs = timm_loaders(files, options)
    for loader in theirs.values():  # fork the workers before TensorFlow starts threads
        next(iter(loader))
    ours = our_datasets(files, options)
    sides = {"keras_convnext": ours, "timm": theirs}
    runs: dict[str, dict[str, list[float]]] = {name: {} for name in sides}
    for round_ in range(options.rounds):
        for kind in ours:
            for side, inputs in sides.items():
                if kind in inputs:
                    speed = images_per_second(inputs[kind])
                    runs[side].setdefault(kind, []).append(speed)
                    print(f"round {round_ + 1}, {side}, {kind}: {speed:.0f}", file=sys.stderr)
    return {
        "images_per_second": {
            side: {kind: round(statistics.median(speeds), 1) for kind, speeds in kinds.items()}
            for side, kinds in runs.items()
        },
        "times_timm": {
            kind: round(statistics.median(
                a / b for a, b in zip(runs["keras_convnext"][kind], runs["timm"][kind])
            ), 2)
            for kind in theirs
        },
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", nargs="?", type=Path, help="folder with JPEGs")
    parser.add_argument("--rounds", type=int, default=5, help="number of rounds (default 5)")
    parser.add_argument("--images", type=int, default=1024, help="images per round (default 1024)")
    parser.add_argument("--batch", type=int, default=64, help="batch size (default 64)")
    parser.add_argument("--workers", type=int, default=2, help="timm's processes (default 2)")
    parser.add_argument("--json", action="store_true", help="print the results as JSON")
    parser.add_argument("--results", type=Path, default=RESULTS, help="output file")
    options = parser.parse_args()
    if options.folder is None:
        parser.error("pass a folder with JPEGs, such as ImageNet's validation set")
    if options.images < FEWEST * options.batch:
        parser.error(f"--images must be at least {FEWEST} batches. Received: {options.images}")
    files = sorted(
        str(path)
        for path in options.folder.rglob("*")
        if path.suffix.lower() in (".jpg", ".jpeg") and path.is_file()
    )
    if not files:
        parser.error(f"the folder contains no .jpg or .jpeg files. Received: {options.folder}")
    load = Load()
    measured = measure(files, options)
    figures = {
        "machine": {**description(LIBRARIES), "timm_workers": options.workers, **load.so_far()},
        "files": len(files),
        "mean_kb": round(statistics.mean(os.path.getsize(file) for file in files) / 1024, 1),
        "rounds": options.rounds,
        "images": options.images,
        "batch": options.batch,
        "size": SIZE,
        **measured,
    }
    options.results.write_text(json.dumps(figures, indent=2) + "\n")
    if options.json:
        print(json.dumps(figures, indent=2))
        return
    for side, kinds in figures["images_per_second"].items():
        for kind, speed in kinds.items():
            print(f"{side:15} {kind:35} {speed:8.1f} images/s")
    for kind, ratio in figures["times_timm"].items():
        print(f"{kind}: {ratio} times timm")


if __name__ == "__main__":
    main()
