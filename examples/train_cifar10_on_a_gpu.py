"""Trains convnext_cifar on CIFAR-10 on one GPU, with Keras' JAX backend, in minutes.

    pip install . "jax[cuda13]"  # in the repository
    python train_cifar10_on_a_gpu.py cifar10_jpeg --output run

The folder has `train` and `test`, each with a folder of images per class. All images stay in the
GPU's memory as bytes (184 MB), and an epoch is one compiled program: shuffling, crops, shears,
colors, erasing, mixing, the steps of AdamW and the average of the weights. The CPU does nothing.

Cost: 500 epochs take 6 minutes on one H200.
Result: the weights that ship as `cifar10`, with 93.4 % on the test images. GPUs add in no fixed
order, so runs differ in the last bits, and there are no checkpoints to resume from. For both, use
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

import keras_convnext

WARMUP_SHARE = 0.03  # of the updates
WEIGHT_DECAY, DROP_PATH_RATE, LABEL_SMOOTHING = 0.15, 0.1, 0.1
CROP_SCALE, CROP_RATIO, SHEAR, COLOR_JITTER = (0.5, 1.0), (4 / 5, 5 / 4), 0.2, 0.3
RANDOM_ERASING, ERASED_SCALE, MIXUP, CUTMIX = 0.25, (0.02, 0.25), 0.8, 1.0
TEST_CROP = 0.875  # of the side, as `keras-convnext evaluate` has it


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


def cropped(key, images):
    """Returns a random crop, sheared along both sides and mirrored at random."""
    count, (place, slant, mirror) = len(images), jax.random.split(key, 3)
    shear = jax.random.uniform(slant, (count, 2), minval=-SHEAR, maxval=SHEAR)
    images = resampled(images, *box(place, count, CROP_SCALE, CROP_RATIO), shear)
    flipped = jax.random.bernoulli(mirror, 0.5, (count, 1, 1, 1))
    return jnp.where(flipped, images[:, :, ::-1], images)


def jittered(key, images):
    """Changes brightness, contrast and saturation by up to COLOR_JITTER: the distance from black,
    from the mean of the image and from the gray of the pixel.
    """
    for draw, axes in zip(jax.random.split(key, 3), (None, (1, 2, 3), (3,))):
        factor = uniform(draw, len(images), 1 - COLOR_JITTER, 1 + COLOR_JITTER)
        base = 0 if axes is None else images.mean(axes, keepdims=True)
        images = jnp.clip(base + (images - base) * factor[:, None, None, None], 0, 255)
    return images


def erased(key, images):
    """Puts noise into a box of one image in four."""
    (count, side), (place, noise, chosen) = images.shape[:2], jax.random.split(key, 3)
    covered = inside(*box(place, count, ERASED_SCALE, (0.3, 1 / 0.3)), side)
    covered &= jax.random.bernoulli(chosen, RANDOM_ERASING, (count, 1, 1))
    noise = 128 + 64 * jax.random.normal(noise, images.shape)
    return jnp.where(covered[..., None], noise, images)


def mixed(key, images, targets):
    """Mixes each image with the one before it: mixup or CutMix, drawn for each image."""
    count, side = images.shape[:2]
    up, cut, which, place = jax.random.split(key, 4)
    is_cut = jax.random.bernoulli(which, 0.5, (count,))
    share = jnp.where(is_cut, 1, jax.random.beta(up, MIXUP, MIXUP, (count,)))  # of the image itself
    size = jnp.sqrt(1 - jax.random.beta(cut, CUTMIX, CUTMIX, (count,)))
    size = jnp.stack([size, size], -1)
    begin = jax.random.uniform(place, (count, 2)) * (1 - size)
    covered = inside(begin, size, side) & is_cut[:, None, None]
    others = jnp.roll(images, 1, axis=0)
    images = jnp.where(covered[..., None], others, images)
    images = images * share[:, None, None, None] + others * (1 - share)[:, None, None, None]
    share = (share * (1 - covered.mean((1, 2))))[:, None]
    return images, targets * share + jnp.roll(targets, 1, axis=0) * (1 - share)


def network(classes, **kwargs):
    return keras_convnext.ConvNeXtCifar(
        weights=None, classes=classes, classifier_activation=None, **kwargs
    )


def schedule_and_optimizer(model, learning_rate, updates):
    warmup = round(WARMUP_SHARE * updates)
    rate = keras.optimizers.schedules.CosineDecay(
        0.0, updates - warmup, alpha=1e-3, warmup_target=learning_rate, warmup_steps=warmup
    )
    optimizer = keras.optimizers.AdamW(rate, weight_decay=WEIGHT_DECAY, epsilon=1e-8)
    optimizer.exclude_from_weight_decay([v for v in model.trainable_variables if v.ndim < 2])
    optimizer.build(model.trainable_variables)
    return rate, optimizer


def programs(model, optimizer, classes, batch_size, ema_decay):
    """Compiles an epoch of training, and an evaluation of weights."""

    def loss_of(trainable, fixed, images, targets):
        logits, fixed = model.stateless_call(trainable, fixed, images, training=True)
        logits = logits.astype("float32")
        return -(targets * jax.nn.log_softmax(logits)).sum(-1).mean(), (logits, fixed)

    def step(state, drawn, images, labels):
        trainable, fixed, moments, average = state
        picked, key = drawn
        crop, color, erase, mix = jax.random.split(key, 4)
        label = labels[picked]
        x = erased(erase, jittered(color, cropped(crop, images[picked].astype("float32"))))
        y = jax.nn.one_hot(label, classes) * (1 - LABEL_SMOOTHING) + LABEL_SMOOTHING / classes
        x, y = mixed(mix, x, y)
        gradient = jax.value_and_grad(loss_of, has_aux=True)
        (loss, (logits, fixed)), slopes = gradient(trainable, fixed, x, y)
        trainable, moments = optimizer.stateless_apply(moments, slopes, trainable)
        average = jax.tree.map(lambda a, w: a + (w - a) * (1 - ema_decay), average, trainable)
        return (trainable, fixed, moments, average), (loss, (logits.argmax(-1) == label).mean())

    @jax.jit
    def epoch(state, key, images, labels):
        order, key = jax.random.split(key)
        updates = len(images) // batch_size
        order = jax.random.permutation(order, len(images))[: updates * batch_size]
        draws = order.reshape(updates, batch_size), jax.random.split(key, updates)
        state, of_steps = jax.lax.scan(lambda s, d: step(s, d, images, labels), state, draws)
        return state, [value.mean() for value in of_steps]

    @jax.jit
    def measure(trainable, fixed, images, labels):
        def batch(part):
            x, y = part
            size = jnp.full((len(x), 2), TEST_CROP)
            x = resampled(x.astype("float32"), (1 - size) / 2, size, jnp.zeros_like(size))
            logits, _ = model.stateless_call(trainable, fixed, x, training=False)
            logits = logits.astype("float32")
            best = jax.lax.top_k(logits, min(5, classes))[1] == y[:, None]
            loss = -jnp.take_along_axis(jax.nn.log_softmax(logits), y[:, None], 1)
            return loss.mean(), best[:, 0].mean(), best.any(-1).mean()

        parts = math.gcd(len(images), 10)
        split = jax.tree.map(lambda a: a.reshape(parts, -1, *a.shape[1:]), (images, labels))
        return [value.mean() for value in jax.lax.map(batch, split)]

    return epoch, measure


def main(
    data: Annotated[
        Path, typer.Argument(help="A folder with train and test, each with a folder per class.")
    ],
    output: Annotated[Path, typer.Option(help="The folder of the run.")],
    epochs: int = 500,
    batch_size: int = 512,
    learning_rate: float = 3e-3,
    ema_decay: float = 0.999,
    log_every: Annotated[int, typer.Option(help="Epochs per row of log.csv.")] = 5,
    seed: int = 0,
) -> None:
    settings = {name: value for name, value in locals().items() if name not in ("data", "output")}
    settings |= {name.lower(): value for name, value in globals().items() if name.isupper()}
    output.mkdir(parents=True)
    train, test = ([jnp.asarray(a) for a in read(data / part)] for part in ("train", "test"))
    classes, updates = int(train[1].max()) + 1, len(train[0]) // batch_size

    keras.utils.set_random_seed(seed)
    keras.config.set_dtype_policy("mixed_bfloat16")
    model = network(classes, drop_path_rate=DROP_PATH_RATE)
    rate, optimizer = schedule_and_optimizer(model, learning_rate, epochs * updates)
    epoch, measure = programs(model, optimizer, classes, batch_size, ema_decay)
    trainable, fixed, moments = (
        [variable.value for variable in variables]
        for variables in (
            model.trainable_variables,
            model.non_trainable_variables,
            optimizer.variables,
        )
    )
    state = (trainable, fixed, moments, trainable)

    keys, began, rows = jax.random.split(jax.random.key(seed), epochs), time.perf_counter(), []
    for index, key in enumerate(keys, 1):
        state, (loss, accuracy) = epoch(state, key, *train)
        if index % log_every and index < epochs:
            continue
        row = {"epoch": index, "update": index * updates, "loss": loss, "accuracy": accuracy}
        row["learning_rate"] = rate(row["update"])
        for kind, weights in (("val", state[0]), ("val_ema", state[3])):
            figures = measure(weights, state[1], *test)
            row |= zip((f"{kind}_loss", f"{kind}_accuracy", f"{kind}_top5_accuracy"), figures)
        rows.append({name: f"{float(value):.7g}" for name, value in row.items()})
        with (output / "log.csv").open("w", newline="") as file:
            log = csv.DictWriter(file, rows[0])
            log.writeheader()
            log.writerows(rows)
        passed = time.perf_counter() - began
        print(f"{passed:6.0f} s, epoch {index}: {rows[-1]['val_ema_accuracy']}", flush=True)

    keras.config.set_dtype_policy("float32")
    for name, weights in (("final", state[0]), ("final_ema", state[3])):
        model = network(classes)
        for variable, value in zip(model.trainable_variables, weights):
            variable.assign(value)
        model.save(output / f"{name}.keras")
    settings |= {
        "seconds": round(time.perf_counter() - began),
        "device": jax.devices()[0].device_kind,
        "versions": {"jax": jax.__version__, "keras": keras.__version__},
    }
    (output / "run.json").write_text(json.dumps(settings, indent=2) + "\n", "utf-8")


if __name__ == "__main__":
    typer.run(main)
