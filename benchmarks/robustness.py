"""Measures how classifiers of CIFAR-10 withstand the corruptions of `corruptions.py`.

Command: `python benchmarks/robustness.py FOLDER [--model NAME=FILE ...] [--limit N]`. FOLDER holds
CIFAR-10's images, with a split "test". Measured are the network of the package, and each `--model`:
a `.keras` file that `keras-convnext train` wrote. NAME_ema is drawn dashed, as the averaged weights
of NAME. Takes about 20 minutes per network on two cores. An interrupted run continues; models that
changed are measured again, and models that are not given leave the table. Writes results.json,
robustness.md and robustness.png to `benchmarks/results/robustness/`, or the folder of `--output`.
`--report` measures nothing, and writes the table and the plot again.
"""

import argparse
import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from corruptions import CORRUPTIONS, Corruption, corrupted
from machine import description

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

RESULTS = Path(__file__).parent / "results" / "robustness"
SHIPPED = "shipped"
AVERAGED = "_ema"  # the averaged weights of the training NAME are NAME_ema
BATCH = 500  # images
LIBRARIES = ("keras-convnext", "keras", "tensorflow", "numpy", "scipy", "pillow")
SEVERITIES = range(1, 6)


def images_of(folder: str, limit: int | None) -> tuple[np.ndarray, np.ndarray]:
    """Returns the test images (N, 32, 32, 3) in uint8, and their labels (N,)."""
    import tensorflow as tf

    from keras_convnext.data.sources import open_source

    source = open_source(folder, "test")
    indices = source.order(0, 0)[:limit]
    examples = [source.example(int(index)) for index in indices]
    images = [tf.io.decode_image(encoded, 3, expand_animations=False) for encoded, _ in examples]
    return np.stack(images), np.array([int(label) for _, label in examples])


def errors_of(model, batches: Iterator[np.ndarray], labels: np.ndarray) -> float:
    """Returns the top-1 error of a model, in 0..1."""
    from keras_convnext.preprocessing import load_images

    size = model.input_shape[1]
    answers = [
        model.predict(load_images(list(batch), size), batch_size=125, verbose=0).argmax(axis=1)
        for batch in batches
    ]
    return float(np.mean(np.concatenate(answers) != labels))


def batches_of(images: np.ndarray, corruption: Corruption | None, severity: int):
    for start in range(0, len(images), BATCH):
        batch = images[start : start + BATCH]
        yield batch if corruption is None else corrupted(batch, corruption, severity, start)


def opened(file: Path | None):
    import keras_convnext

    if file is None:
        return keras_convnext.ConvNeXtCifar(weights="cifar10")
    return keras_convnext.load_model(file)


def digest_of(file: Path | None) -> str:
    from keras_convnext.shipped import shipped

    file = file or shipped("weights/cifar10") / "convnext_cifar_32.safetensors"
    return hashlib.sha256(file.read_bytes()).hexdigest()


def measure(name: str, file: Path | None, images, labels, figures: dict, save) -> None:
    """Adds the errors of a model to the results, one set at a time."""
    digest = digest_of(file)
    earlier = figures["models"].get(name, {})
    if (earlier.get("sha256"), earlier.get("images")) != (digest, len(images)):
        earlier = {"sha256": digest, "images": len(images), "errors": {}}
    figures["models"][name] = earlier
    model = None
    sets = [(None, 0), *((each, severity) for each in CORRUPTIONS for severity in SEVERITIES)]
    for corruption, severity in sets:
        kind = "clean" if corruption is None else f"{corruption.name} {severity}"
        if kind in earlier["errors"]:
            continue
        model = model or opened(file)
        error = errors_of(model, batches_of(images, corruption, severity), labels)
        earlier["errors"][kind] = round(error, 4)
        print(f"{name}, {kind}: {error:.2%}", flush=True)
        save()


def mean_error(errors: dict[str, float], corruption: Corruption) -> float:
    return float(np.mean([errors[f"{corruption.name} {severity}"] for severity in SEVERITIES]))


def overall(errors: dict[str, float]) -> float:
    return float(np.mean([mean_error(errors, each) for each in CORRUPTIONS if each.counts]))


def markdown(figures: dict) -> str:
    models = figures["models"]
    counted = sum(corruption.counts for corruption in CORRUPTIONS)
    lines = [
        "# Robustness of classifiers of CIFAR-10",
        "",
        f"Top-1 error in percent, over {next(iter(models.values()))['images']:,} test images; for "
        "corruptions, the mean over five severities. The corruptions follow CIFAR-10-C, but are "
        f"not its files: `benchmarks/corruptions.py` states the differences. The mean is that of "
        f"{counted} of the benchmark's 15 corruptions, so it cannot be compared with published "
        "figures. Extra corruptions do not count.",
        "",
        f"Command: `{figures['command']}`.",
        "",
        f"| | {' | '.join(models)} |",
        f"| --- |{' ---: |' * len(models)}",
    ]
    rows = [("clean", [own["errors"]["clean"] for own in models.values()])]
    rows += [
        (
            each.name.replace("_", " ") + ("" if each.counts else " (extra)"),
            [mean_error(own["errors"], each) for own in models.values()],
        )
        for each in CORRUPTIONS
    ]
    rows += [(f"**mean of {counted}**", [overall(own["errors"]) for own in models.values()])]
    lines += [f"| {name} | {' | '.join(f'{value:.1%}' for value in row)} |" for name, row in rows]
    return "\n".join(lines).replace("%", "") + "\n"


def draw(figures: dict, path: Path) -> None:
    import matplotlib.pyplot as plt

    runs = dict.fromkeys(name.removesuffix(AVERAGED) for name in figures["models"])
    colors = {name: f"C{index}" for index, name in enumerate(runs)}
    figure, axes = plt.subplots(4, 4, figsize=(9, 8), sharex=True)
    for corruption, axis in zip(CORRUPTIONS, axes.flat):
        for name, own in figures["models"].items():
            errors = own["errors"]
            points = [errors["clean"]]
            points += [errors[f"{corruption.name} {severity}"] for severity in SEVERITIES]
            axis.plot(
                range(6),
                [100 * point for point in points],
                color=colors[name.removesuffix(AVERAGED)],
                linestyle="--" if name.endswith(AVERAGED) else "-",
                linewidth=1,
                label=name,
            )
        axis.set_title(corruption.name.replace("_", " "), fontsize=9)
        axis.grid(alpha=0.3)
    axes.flat[-1].axis("off")
    axes.flat[-1].legend(*axes.flat[0].get_legend_handles_labels(), loc="center", frameon=False)
    figure.supxlabel("severity (0: clean)")
    figure.supylabel("top-1 error, %")
    figure.tight_layout()
    figure.savefig(path, dpi=100)
    plt.close(figure)


def named(text: str) -> tuple[str, Path]:
    name, separator, file = text.partition("=")
    if not separator or not Path(file).is_file():
        raise argparse.ArgumentTypeError(f"must be NAME=FILE. Received: {text}")
    return name, Path(file)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", nargs="?", help="CIFAR-10's images")
    parser.add_argument("--model", action="append", default=[], type=named, metavar="NAME=FILE")
    parser.add_argument("--limit", type=int, help="number of test images")
    parser.add_argument("--output", type=Path, default=RESULTS)
    parser.add_argument("--report", action="store_true", help="write table and plot again")
    options = parser.parse_args()
    results = options.output / "results.json"
    figures = json.loads(results.read_text("utf-8")) if results.exists() else {"models": {}}

    def save() -> None:
        options.output.mkdir(parents=True, exist_ok=True)
        temporary = results.with_suffix(".part")
        temporary.write_text(json.dumps(figures, indent=1) + "\n", "utf-8")
        temporary.replace(results)

    if not options.report:
        if options.folder is None:
            parser.error("FOLDER is required")
        given = "".join(
            f" --model {name}={file.absolute().parent.name}/{file.name}"
            for name, file in options.model
        )
        given += f" --limit {options.limit}" if options.limit else ""
        figures["command"] = f"python benchmarks/robustness.py FOLDER{given}"
        figures["machine"] = description(LIBRARIES)
        images, labels = images_of(options.folder, options.limit)
        asked = {SHIPPED: None, **dict(options.model)}
        earlier = figures["models"]
        figures["models"] = {name: earlier[name] for name in asked if name in earlier}
        for name, file in asked.items():
            measure(name, file, images, labels, figures, save)
        save()
    (options.output / "robustness.md").write_text(markdown(figures), "utf-8")
    draw(figures, options.output / "robustness.png")
    print(markdown(figures))


if __name__ == "__main__":
    main()
