"""Pre-trains a ConvNeXt on ImageNet-22K, with the paper's recipe (table 5).

    python pretrain_imagenet22k.py --data imagenet22k --output runs/base_22k

The data is the ImageNet-22K release, prepared once by TensorFlow Datasets (`imagenet22k`), or your
own folder or shards. All GPUs of the machine are used. With several machines, start the same
command on each, under Slurm or with TF_CONFIG.

Cost: 90 epochs of 14.2 million images. The official run used 128 GPUs; `keras-convnext plan
--recipe imagenet22k --model convnext_base --device-type a100-80gb` estimates the hours.
Result: weights to start `fine_tune_384.py` from. The paper reports 86.8 % on ImageNet-1K for
ConvNeXt-B after that. To resume an interrupted run, repeat the command.
"""

from typing import Annotated

import typer
from rich.console import Console

from keras_convnext.classification import train


def main(
    data: Annotated[str, typer.Option(help="As for `keras-convnext train`.")],
    output: Annotated[str, typer.Option(help="The folder of the run.")],
    model: str = "convnext_base",
    setting: Annotated[
        list[str] | None, typer.Option(help="Override a field of the recipe: KEY=VALUE.")
    ] = None,
) -> None:
    settings = dict(pair.split("=", 1) for pair in setting or ())
    train("imagenet22k", model, data, output, settings, console=Console(stderr=True))


if __name__ == "__main__":
    typer.run(main)
