"""Exports published weights, or a file, as a SavedModel that classifies image files.

    python export_saved_model.py convnext_tiny imagenet served/tiny
    python export_saved_model.py convnext_tiny runs/photos/best.keras served/photos

Cost: a minute, including the comparison of the artifact with the live model.
Result: a folder for TensorFlow Serving (see serving.md), and the classes of one photograph, as the
SavedModel returns them.
"""

from pathlib import Path

import tensorflow as tf
import typer

from keras_convnext import load_model
from keras_convnext.export import export
from keras_convnext.loading import checkpoint_file
from keras_convnext.preprocessing import class_names
from keras_convnext.pretrained.record import recorded_names

CAT = Path(__file__).with_name("photos") / "cat.jpg"


def main(model: str, weights: str, output: str) -> None:
    network = load_model(weights, model)
    names = class_names(network.output_shape[-1], recorded_names(checkpoint_file(weights, model)))
    found = export(network, output, "saved_model", names=[name for _, name in names])
    print(f"Wrote {output}: {found.error:.1e} of the largest logit from the live network")

    served = tf.saved_model.load(f"{output}/1")
    answer = served.signatures["serve_bytes"](images=tf.constant([CAT.read_bytes()]))
    for name, probability in zip(answer["names"][0].numpy(), answer["probabilities"][0].numpy()):
        print(f"{probability:6.1%}  {name.decode()}")


if __name__ == "__main__":
    typer.run(main)
