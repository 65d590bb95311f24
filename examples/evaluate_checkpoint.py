"""Measures published weights, and says whether they are as good as published.

    python evaluate_checkpoint.py convnext_tiny imagenet --data imagenet2012
    python evaluate_checkpoint.py convnext_cifar cifar10 --data cifar10_jpeg --split test

Cost: one pass forwards of 50,000 images: an hour or two on two CPU cores for Tiny, a minute on a
GPU. `--limit 1000` is enough to see that nothing is wrong.
Result: the published top-1 to 0.1 point or so, on all images: 82.1 % for Tiny.
"""

import math
from typing import Annotated

import typer

from keras_convnext import list_weights, load_model
from keras_convnext.evaluation import evaluate


def main(
    model: str,
    weights: str,
    data: Annotated[str, typer.Option(help="As `keras-convnext evaluate` takes it.")],
    split: str | None = None,
    limit: Annotated[int | None, typer.Option(help="So many images, drawn at random.")] = None,
) -> None:
    network = load_model(weights, model)  # or an error that lists what is published
    published = next(row for row in list_weights(model) if row.tag == weights)
    measured = evaluate(network, data, split, limit=limit)
    # Twice the deviation of a share of so many images: one time in twenty chance alone does more.
    chance = 2 * math.sqrt(measured.top1 * (1 - measured.top1) / measured.images)
    print(f"top-1 {measured.top1:.2%} +- {chance:.2%} of {measured.images:,} images")
    if published.top1:
        print(f"published: {published.top1} %")


if __name__ == "__main__":
    typer.run(main)
