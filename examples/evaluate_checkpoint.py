"""Measures the accuracy of published weights and compares it with the published figure.

    python evaluate_checkpoint.py convnext_tiny imagenet --data imagenet2012
    python evaluate_checkpoint.py convnext_cifar cifar10 --data cifar10_jpeg --split test

Cost: one forward pass over 50,000 images, which takes ConvNeXt-T an hour or two on two CPU cores
and a minute on a GPU. `--limit 1000` is enough for a quick check.
Result: on all images, the published top-1 accuracy to about 0.1 points: 82.1 % for ConvNeXt-T.
"""

import math
from typing import Annotated

import typer

from keras_convnext import list_weights, load_model
from keras_convnext.classification import evaluate


def main(
    model: str,
    weights: str,
    data: Annotated[str, typer.Option(help="As for `keras-convnext evaluate`.")],
    split: str | None = None,
    limit: Annotated[
        int | None, typer.Option(help="Use this many images, drawn at random.")
    ] = None,
) -> None:
    network = load_model(weights, model)  # or an error that lists what is published
    published = next(row for row in list_weights(model) if row.tag == weights)
    measured = evaluate(network, data, split, limit=limit)
    # Two standard deviations: one measurement in twenty is further off by chance alone.
    chance = 2 * math.sqrt(measured.top1 * (1 - measured.top1) / measured.images)
    print(f"top-1 {measured.top1:.2%} +- {chance:.2%} of {measured.images:,} images")
    if published.top1:
        print(f"published: {published.top1} %")


if __name__ == "__main__":
    typer.run(main)
