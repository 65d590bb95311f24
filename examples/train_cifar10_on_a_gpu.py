"""Trains convnext_cifar on CIFAR-10 on one GPU, with Keras' JAX backend, in minutes.

    pip install . "jax[cuda13]"  # in the repository
    python train_cifar10_on_a_gpu.py cifar10_jpeg --output run

The folder has `train` and `test`, each with a folder of images per class. The settings are those of
the recipe `cifar10_gpu`; `--setting epochs=200` overrides one. All images stay in the GPU's memory
as bytes (184 MB), and an epoch is one compiled program: shuffling, crops, shears, colors, erasing,
mixing, and the updates of the weights and their averages. The CPU does nothing.

From the same batches, the updates are those of `keras-convnext train`, to rounding. The
augmentation differs in three ways: images are also sheared, erased boxes are smaller, and each
image draws its own mixing.

Cost: 500 epochs take 6 minutes on one H200.
Result: the weights that ship as `cifar10`, with 93.4 % on the test images. An earlier version of
this script trained them, with the same settings and Keras' own AdamW. GPUs add in no fixed order,
so runs differ in the last bits, and there are no checkpoints to resume from. For both, use
`keras-convnext train --recipe cifar10`, on a CPU.
"""

import csv
import json
import math
import os
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Annotated

os.environ["KERAS_BACKEND"] = "jax"

import jax
import jax.numpy as jnp
import keras
import numpy as np
import typer
from PIL import Image

from keras_convnext.classification import recipe_for
from keras_convnext.classification.network import build_classifier, without_softmax
from keras_convnext.training.assembly import optimizer_of, schedule_of
from keras_convnext.training.layout import Layout
from keras_convnext.training.length import length_of
from keras_convnext.training.settings import flat

SHEAR, ERASED_SCALE = 0.2, (0.02, 0.25)
TEST_CROP = 0.875  # of the side, as `keras-convnext evaluate` has it
# Settings that this script does not implement, and their values without effect.
LEFT_OUT = {
    "schedule.updates": None,
    "input.early_sizes": (),
    "input.rand_augment": None,
    "targets.teacher": None,
    "targets.mixing_probability": 1.0,
}


def read_recipe(name, model, settings):
    recipe = recipe_for(name, model, settings)
    wrong = [key for key, value in LEFT_OUT.items() if flat(recipe)[key] != value]
    if recipe.batch.precision == "mixed_float16":  # would need a scaled loss
        wrong.append("batch.precision")
    if wrong:
        raise ValueError(
            "This script does not support these settings; `keras-convnext train` does. "
            f"Received: {', '.join(f'{key}={flat(recipe)[key]}' for key in wrong)}"
        )
    return recipe


def read(folder):
    """Returns images (N, H, W, 3), uint8, and their labels (N,)."""
    classes = sorted(path for path in folder.iterdir() if path.is_dir())
    files = [(file, label) for label, path in enumerate(classes) for file in sorted(path.iterdir())]
    with ThreadPoolExecutor() as pool:
        images = list(pool.map(lambda pair: np.asarray(Image.open(pair[0]).convert("RGB")), files))
    return np.stack(images), np.array([label for _, label in files])


def uniform(key, count, low, high):
    return jax.random.uniform(key, (count,), minval=low, maxval=high)


def box(key, count, shares, ratios):
    """Draws boxes of a share of the image: begins and sizes (N, 2), y before x, in 0..1."""
    share, ratio, place = jax.random.split(key, 3)
    area = uniform(share, count, *shares)
    ratio = jnp.exp(uniform(ratio, count, *map(math.log, ratios)))
    size = jnp.minimum(jnp.sqrt(jnp.stack([area / ratio, area * ratio], -1)), 1)
    return jax.random.uniform(place, (count, 2)) * (1 - size), size


def inside(begin, size, side):
    """Whether each pixel lies in the box of its image: (N, side, side)."""
    centers = (jnp.arange(side) + 0.5) / side
    within = (centers >= begin[..., None]) & (centers < (begin + size)[..., None])
    return within[:, 0, :, None] & within[:, 1, None, :]


def resampled(images, begin, size, shear):
    """Returns a sheared box of each image, resized to the whole: bilinear, down and then across."""
    side = images.shape[1]
    pixels = jnp.arange(side)
    straight = begin[..., None] * side + size[..., None] * (pixels + 0.5) - 0.5
    slant = shear[..., None] * (pixels + 0.5 - side / 2)
    source = jnp.clip(straight[..., None, :] + slant[..., None], 0, side - 1)
    weights = jnp.maximum(0, 1 - jnp.abs(source[..., None] - pixels))  # (N, 2, line, to, from)
    images = jnp.einsum("nxyi,nixc->nyxc", weights[:, 0], images)
    return jnp.einsum("nyxj,nyjc->nyxc", weights[:, 1], images)


def cropped(key, images, own):
    """Returns a random crop, sheared along both sides and mirrored at random."""
    count, (place, slant, mirror) = len(images), jax.random.split(key, 3)
    shear = jax.random.uniform(slant, (count, 2), minval=-SHEAR, maxval=SHEAR)
    images = resampled(images, *box(place, count, own.crop_scale, own.crop_ratio), shear)
    flipped = jax.random.bernoulli(mirror, own.horizontal_flip, (count, 1, 1, 1))
    return jnp.where(flipped, images[:, :, ::-1], images)


def jittered(key, images, strength):
    """Changes brightness, contrast and saturation by up to `strength`: the distance from black,
    from the mean of the image and from the gray of the pixel.
    """
    for draw, axes in zip(jax.random.split(key, 3), (None, (1, 2, 3), (3,))):
        factor = uniform(draw, len(images), 1 - strength, 1 + strength)
        base = 0 if axes is None else images.mean(axes, keepdims=True)
        images = jnp.clip(base + (images - base) * factor[:, None, None, None], 0, 255)
    return images


def erased(key, images, probability):
    """Puts noise into a box of some of the images."""
    (count, side), (place, noise, chosen) = images.shape[:2], jax.random.split(key, 3)
    covered = inside(*box(place, count, ERASED_SCALE, (0.3, 1 / 0.3)), side)
    covered &= jax.random.bernoulli(chosen, probability, (count, 1, 1))
    noise = 128 + 64 * jax.random.normal(noise, images.shape)
    return jnp.where(covered[..., None], noise, images)


def mixed(key, images, targets, own):
    """Mixes each image with the one before it: mixup or CutMix, drawn for each image."""
    count, side = images.shape[:2]
    up, cut, which, place = jax.random.split(key, 4)
    switch = own.mixing_switch if own.mixup and own.cutmix else float(own.cutmix > 0)
    is_cut = jax.random.bernoulli(which, switch, (count,))
    of_mixup, of_cutmix = (
        jax.random.beta(key, alpha or 1, alpha or 1, (count,))
        for key, alpha in ((up, own.mixup), (cut, own.cutmix))
    )
    share = jnp.where(is_cut, 1, of_mixup)  # of the image itself
    size = jnp.sqrt(1 - of_cutmix)
    size = jnp.stack([size, size], -1)
    begin = jax.random.uniform(place, (count, 2)) * (1 - size)
    covered = inside(begin, size, side) & is_cut[:, None, None]
    others = jnp.roll(images, 1, axis=0)
    images = jnp.where(covered[..., None], others, images)
    images = images * share[:, None, None, None] + others * (1 - share)[:, None, None, None]
    share = (share * (1 - covered.mean((1, 2))))[:, None]
    return images, targets * share + jnp.roll(targets, 1, axis=0) * (1 - share)


def augmented(key, images, labels, classes, recipe):
    """Returns a batch as the network sees it: images and targets (N, classes)."""
    crop, color, erase, mix = jax.random.split(key, 4)
    own, smoothing = recipe.input, recipe.targets.label_smoothing
    images = cropped(crop, images.astype("float32"), own)
    if own.color_jitter:
        images = jittered(color, images, own.color_jitter)
    images = erased(erase, images, own.random_erasing)
    targets = jax.nn.one_hot(labels, classes) * (1 - smoothing) + smoothing / classes
    if recipe.targets.mixup or recipe.targets.cutmix:
        images, targets = mixed(mix, images, targets, recipe.targets)
    return images, targets


def start(recipe, name, classes, examples):
    """Returns the network, up to its logits, and the optimizer."""
    keras.utils.set_random_seed(recipe.seed)
    keras.config.set_dtype_policy(recipe.batch.precision)
    model = without_softmax(build_classifier(recipe, name, classes))
    layout = Layout(0, 1, 1, recipe.batch.batch_size, 1)  # the whole batch at once, on one device
    optimizer = optimizer_of(recipe, layout, length_of(recipe, examples))
    optimizer.build(model.trainable_variables)
    return model, optimizer


def state_of(model, optimizer):
    """Returns the values that an update changes."""
    parts = model.trainable_variables, model.non_trainable_variables, optimizer.variables
    return tuple([variable.value for variable in part] for part in parts)


def averages_of(optimizer, values):
    """Returns the averages of the weights among the values of the optimizer's variables."""
    found = {id(variable): value for variable, value in zip(optimizer.variables, values)}
    return [found[id(average)] for average in optimizer.averages]


def programs(recipe, model, optimizer, classes):
    """Returns an update, an epoch of updates, and an evaluation of weights."""

    def loss_of(trainable, fixed, images, targets):
        logits, fixed = model.stateless_call(trainable, fixed, images, training=True)
        return -(targets * jax.nn.log_softmax(logits)).sum(-1).mean(), (logits, fixed)

    def update(state, images, targets):
        trainable, fixed, moments = state
        gradient = jax.value_and_grad(loss_of, has_aux=True)
        (loss, (logits, fixed)), slopes = gradient(trainable, fixed, images, targets)
        trainable, moments = optimizer.stateless_apply(moments, slopes, trainable)
        return (trainable, fixed, moments), (loss, logits)

    @jax.jit
    def epoch(state, key, images, labels):
        def step(state, drawn):
            picked, key = drawn
            batch = augmented(key, images[picked], labels[picked], classes, recipe)
            state, (loss, logits) = update(state, *batch)
            return state, (loss, (logits.argmax(-1) == labels[picked]).mean())

        order, key = jax.random.split(key)
        size = recipe.batch.batch_size
        updates = len(images) // size
        order = jax.random.permutation(order, len(images))[: updates * size]
        draws = order.reshape(updates, size), jax.random.split(key, updates)
        state, of_steps = jax.lax.scan(step, state, draws)
        return state, [value.mean() for value in of_steps]

    @jax.jit
    def measure(trainable, fixed, images, labels):
        def batch(part):
            x, y = part
            size = jnp.full((len(x), 2), TEST_CROP)
            x = resampled(x.astype("float32"), (1 - size) / 2, size, jnp.zeros_like(size))
            logits, _ = model.stateless_call(trainable, fixed, x, training=False)
            best = jax.lax.top_k(logits, min(5, classes))[1] == y[:, None]
            loss = -jnp.take_along_axis(jax.nn.log_softmax(logits), y[:, None], 1)
            return loss.mean(), best[:, 0].mean(), best.any(-1).mean()

        parts = math.gcd(len(images), 10)
        split = jax.tree.map(lambda a: a.reshape(parts, -1, *a.shape[1:]), (images, labels))
        return [value.mean() for value in jax.lax.map(batch, split)]

    return update, epoch, measure


def main(
    data: Annotated[
        Path, typer.Argument(help="A folder with train and test, each with a folder per class.")
    ],
    output: Annotated[Path, typer.Option(help="The folder of the run.")],
    recipe: str = "cifar10_gpu",
    model: str = "convnext_cifar",
    setting: Annotated[
        list[str] | None, typer.Option(help="Override a field of the recipe: KEY=VALUE.")
    ] = None,
    log_every: Annotated[int, typer.Option(help="Epochs per row of log.csv.")] = 5,
) -> None:
    name, settings = model, dict(pair.split("=", 1) for pair in setting or ())
    recipe = read_recipe(recipe, name, settings)
    train, test = ([jnp.asarray(a) for a in read(data / part)] for part in ("train", "test"))
    if train[0].shape[1:3] != (recipe.input.size,) * 2:
        raise ValueError(
            f"Images must have {recipe.input.size} x {recipe.input.size} pixels. "
            f"Received: shape={train[0].shape[1:]} in {data}"
        )
    output.mkdir(parents=True)
    classes, length = int(train[1].max()) + 1, length_of(recipe, len(train[0]))
    rate, epochs = schedule_of(recipe, length), recipe.schedule.epochs
    model, optimizer = start(recipe, name, classes, len(train[0]))
    _, epoch, measure = programs(recipe, model, optimizer, classes)
    state = state_of(model, optimizer)

    def weights_of(state):
        averages = {"_ema": averages_of(optimizer, state[2])} if optimizer.use_ema else {}
        return {"": state[0], **averages}

    began, rows = time.perf_counter(), []
    for index, key in enumerate(jax.random.split(jax.random.key(recipe.seed), epochs), 1):
        state, (loss, accuracy) = epoch(state, key, *train)
        if index % log_every and index < epochs:
            continue
        row = {"epoch": index, "update": index * length.epoch, "loss": loss, "accuracy": accuracy}
        row["learning_rate"] = rate(row["update"])
        for kind, weights in weights_of(state).items():
            figures = measure(weights, state[1], *test)
            names = (f"val{kind}_{each}" for each in ("loss", "accuracy", "top5_accuracy"))
            row |= zip(names, figures)
        rows.append({name: f"{float(value):.7g}" for name, value in row.items()})
        with (output / "log.csv").open("w", newline="") as file:
            log = csv.DictWriter(file, rows[0])
            log.writeheader()
            log.writerows(rows)
        passed = time.perf_counter() - began
        print(f"{passed:6.0f} s, epoch {index}: {rows[-1]['val_accuracy']}", flush=True)

    keras.config.set_dtype_policy("float32")
    for kind, weights in weights_of(state).items():
        classifier = build_classifier(recipe, name, classes)
        for variable, value in zip(classifier.trainable_variables, weights, strict=True):
            variable.assign(value)
        classifier.save(output / f"final{kind}.keras")
    settings = {
        "model": name,
        "recipe": flat(recipe),
        "shear": SHEAR,
        "erased_scale": ERASED_SCALE,
        "test_crop": TEST_CROP,
        "seconds": round(time.perf_counter() - began),
        "device": jax.devices()[0].device_kind,
        "versions": {"jax": jax.__version__, "keras": keras.__version__},
    }
    (output / "run.json").write_text(json.dumps(settings, indent=2) + "\n", "utf-8")


if __name__ == "__main__":
    typer.run(main)
