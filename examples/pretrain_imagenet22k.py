"""Pre-trains a ConvNeXt on ImageNet-22K, by the recipe of the paper (table 5).

    python pretrain_imagenet22k.py --data imagenet22k --output runs/base_22k

The data is the release as it comes, prepared once by TensorFlow Datasets (`imagenet22k`), or a
folder or shards of one's own. All GPUs of the machine take part; for several machines start the
same command on each, under Slurm or with TF_CONFIG.

Cost: 90 epochs of 14.2 million images. `keras-convnext plan --recipe imagenet22k --model
convnext_base --device-type a100-80gb` tells the hours; the reference is 128 devices.
Result: what `fine_tune_384.py` starts from; fine-tuned so, Base has 86.8 % on ImageNet-1K. A run
that was stopped goes on by the same command.
"""

from typing import Annotated

import typer
from rich.console import Console

from keras_convnext.training import train


def main(
    data: Annotated[str, typer.Option(help="As `keras-convnext train` takes it.")],
    output: Annotated[str, typer.Option(help="The folder of the run.")],
    model: str = "convnext_base",
    setting: Annotated[list[str] | None, typer.Option(help="Of the recipe: KEY=VALUE.")] = None,
) -> None:
    settings = dict(pair.split("=", 1) for pair in setting or ())
    train("imagenet22k", model, data, output, settings, console=Console(stderr=True))


if __name__ == "__main__":
    typer.run(main)
