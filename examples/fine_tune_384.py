"""Fine-tunes ImageNet-22K weights on ImageNet-1K at 384 px, with the paper's recipe (table 6).

    python fine_tune_384.py --data imagenet2012 --output runs/base_384
    python fine_tune_384.py --data imagenet2012 --output runs/own --start runs/base_22k/best.keras

Cost: 30 epochs of 1.28 million images at 384 px. The official run used 32 GPUs; `keras-convnext
plan --recipe imagenet22k_to_1k_384 --model convnext_base --device-type a100-80gb` estimates the
hours.
Result: the paper reports 86.8 % top-1 on ImageNet-1K for ConvNeXt-B, and 85.8 % at 224 px. To
resume an interrupted run, repeat the command.
"""

from typing import Annotated

import typer
from rich.console import Console

from keras_convnext.classification import train


def main(
    data: Annotated[str, typer.Option(help="As for `keras-convnext train`.")],
    output: Annotated[str, typer.Option(help="The folder of the run.")],
    model: str = "convnext_base",
    start: Annotated[str, typer.Option(help="Published weights or a file.")] = "imagenet22k",
    setting: Annotated[
        list[str] | None, typer.Option(help="Override a field of the recipe: KEY=VALUE.")
    ] = None,
) -> None:
    settings = {"start": start} | dict(pair.split("=", 1) for pair in setting or ())
    train("imagenet22k_to_1k_384", model, data, output, settings, console=Console(stderr=True))


if __name__ == "__main__":
    typer.run(main)
