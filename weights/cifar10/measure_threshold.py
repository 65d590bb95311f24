"""Measures from which probability on an answer of the shipped network is to be believed.

A photograph that shows none of the ten classes should be reported as such. Several scores are
compared by how well they tell such photographs from those that the network gets right; the
threshold of each is the one that flags 80 % of the photographs in --choose, and is then checked on
those in --outside and --inside.

    python weights/cifar10/measure_threshold.py --choose gcompris/outside \\
        --outside imagenet/outside --inside cifar10_jpeg/test imagenet/inside gcompris/inside \\
        --train cifar10_jpeg/train

Folders of --inside and --train hold a folder for each class, named as in classes.txt; the others
are searched for images.
"""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import keras
import numpy as np

import keras_convnext
from keras_convnext.picture_files import find_images
from keras_convnext.preprocessing import load_images

CLASSES = Path(__file__).with_name("classes.txt").read_text("utf-8").split()
FLAGGED = 0.80  # of the photographs in --choose
FROM_EACH_CLASS = 1000  # training images, for the scores that need them
NEIGHBOR = 10


class Outputs(NamedTuple):
    """What one forward pass gives for the images of a folder, and which answers are right."""

    logits: np.ndarray  # (N, 10)
    features: np.ndarray  # (N, 256)
    right: np.ndarray  # (N,)


def outputs_of(model: keras.Model, paths: list[Path], labels: np.ndarray | None) -> Outputs:
    """Runs the network; without labels every answer counts as right, to be used as a whole."""
    both = keras.Model(
        model.input, [model.get_layer("head").output, model.get_layer("norm").output]
    )
    images = load_images(paths, model.input_shape[1])
    logits, features = both.predict(images, batch_size=128, verbose=0)
    right = np.ones(len(paths), bool) if labels is None else logits.argmax(1) == labels
    return Outputs(logits, features, right)


def of_classes(model: keras.Model, folder: Path, most: int | None = None) -> Outputs:
    """Runs the network on a folder of class folders, or on the first images of each."""
    paths, labels = [], []
    for index, name in enumerate(CLASSES):
        found = find_images([folder / name])[:most] if (folder / name).is_dir() else []
        paths += found
        labels += [index] * len(found)
    return outputs_of(model, paths, np.array(labels))


def probabilities(logits: np.ndarray) -> np.ndarray:
    """The softmax."""
    powers = np.exp(logits - logits.max(1, keepdims=True))
    return powers / powers.sum(1, keepdims=True)


def margin(logits: np.ndarray) -> np.ndarray:
    """From the second largest logit to the largest."""
    first, second = np.sort(logits, 1)[:, :-3:-1].T
    return first - second


def negative_entropy(logits: np.ndarray) -> np.ndarray:
    """Of the probabilities, in nats."""
    shares = probabilities(logits)
    return (shares * np.log(shares)).sum(1)


def scores(training: Outputs | None) -> dict[str, Callable[[Outputs], np.ndarray]]:
    """The scores, each higher for an image that shows a class."""
    found: dict[str, Callable[[Outputs], np.ndarray]] = {
        "largest probability": lambda x: probabilities(x.logits).max(1),
        "largest logit": lambda x: x.logits.max(1),
        "energy": lambda x: np.logaddexp.reduce(x.logits, axis=1),
        "entropy": lambda x: negative_entropy(x.logits),
        "margin of logits": lambda x: margin(x.logits),
        "norm of features": lambda x: np.linalg.norm(x.features, axis=1),
    }
    if training is None:
        return found
    known, answers = training.features, training.logits.argmax(1)
    means = np.stack([known[answers == index].mean(0) for index in range(len(CLASSES))])
    within, overall = precision(known - means[answers]), precision(known - known.mean(0))
    directions = unit(known)

    def to_class(x: Outputs) -> np.ndarray:
        return np.min([distance(x.features - mean, within) for mean in means], axis=0)

    found["Mahalanobis"] = lambda x: -to_class(x)
    found["relative Mahalanobis"] = lambda x: (
        distance(x.features - known.mean(0), overall) - to_class(x)
    )
    found["cosine to class mean"] = lambda x: (unit(x.features) @ unit(means).T).max(1)
    found["nearest neighbors"] = lambda x: np.partition(
        unit(x.features) @ directions.T, -NEIGHBOR, axis=1
    )[:, -NEIGHBOR]
    return found


def unit(vectors: np.ndarray) -> np.ndarray:
    """Vectors of length 1."""
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def precision(centered: np.ndarray) -> np.ndarray:
    """The inverse of the covariance, with a small ridge."""
    covariance = np.cov(centered.T)
    ridge = 1e-3 * np.trace(covariance) / len(covariance)
    return np.linalg.inv(covariance + ridge * np.eye(len(covariance)))


def distance(centered: np.ndarray, inverse: np.ndarray) -> np.ndarray:
    """The squared Mahalanobis distance from 0."""
    return np.einsum("ni,ij,nj->n", centered, inverse, centered)


def auroc(inside: np.ndarray, outside: np.ndarray) -> float:
    """How often an image inside scores higher than one outside."""
    both = np.sort(outside)
    below, up_to = (np.searchsorted(both, inside, side) for side in ("left", "right"))
    return float((below + up_to).mean() / (2 * len(outside)))


def main() -> None:
    """Prints tables in Markdown."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--choose", type=Path, required=True)
    parser.add_argument("--outside", type=Path, nargs="*", default=[])
    parser.add_argument("--inside", type=Path, nargs="+", required=True)
    parser.add_argument("--train", type=Path)
    given = parser.parse_args()

    model = keras_convnext.ConvNeXtCifar(weights="cifar10")
    outside = {
        folder: outputs_of(model, find_images([folder]), None)
        for folder in (given.choose, *given.outside)
    }
    inside = {folder: of_classes(model, folder) for folder in given.inside}
    training = of_classes(model, given.train, FROM_EACH_CLASS) if given.train else None
    for folder, found in outside.items():
        print(f"{folder}: {len(found.right)} outside")
    for folder, found in inside.items():
        print(f"{folder}: {len(found.right)} inside, {found.right.mean():.1%} right")

    print("\nAUROC, right answers against photographs outside")
    pairs = [(ours, theirs) for ours in inside for theirs in outside]
    print("| score |", " | ".join(f"{ours} / {theirs}" for ours, theirs in pairs), "|")
    for name, score in scores(training).items():
        found = [
            auroc(score(inside[ours])[inside[ours].right], score(outside[theirs]))
            for ours, theirs in pairs
        ]
        print(f"| {name} |", " | ".join(f"{value:.3f}" for value in found), "|")

    print(f"\nFlagged, at the threshold that flags {FLAGGED:.0%} of {given.choose}")
    columns = [str(folder) for folder in outside]
    columns += [f"{folder}, {kind}" for folder in inside for kind in ("right", "wrong")]
    print("| score | threshold |", " | ".join(columns), "|")
    for name, score in scores(training).items():
        threshold = float(np.quantile(score(outside[given.choose]), FLAGGED))
        flagged_at(threshold, name, score, outside, inside)
    name = "largest probability"
    for percent in range(50, 95, 5):
        flagged_at(percent / 100, name, scores(None)[name], outside, inside)


def flagged_at(
    threshold: float,
    name: str,
    score: Callable[[Outputs], np.ndarray],
    outside: dict[Path, Outputs],
    inside: dict[Path, Outputs],
) -> None:
    """Prints which share of each folder is below a threshold."""
    groups = [score(found) for found in outside.values()]
    for found in inside.values():
        groups += [score(found)[found.right], score(found)[~found.right]]
    cells = [f"{(group < threshold).mean():.1%}" if len(group) else "" for group in groups]
    print(f"| {name} | {threshold:.3f} |", " | ".join(cells), "|")


if __name__ == "__main__":
    main()
