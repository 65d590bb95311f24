"""Batches of pixels and targets for training and validation."""

import math
from pathlib import Path

import tensorflow as tf

from keras_convnext.classification.augmentation import training_image
from keras_convnext.classification.class_matching import Relabeled
from keras_convnext.classification.mixing import group_sizes, mix, smoothed_targets
from keras_convnext.classification.recipes import Classification
from keras_convnext.classification.suite_recognition import refuse_suite_data, refuse_suite_source
from keras_convnext.data.checks import check_images
from keras_convnext.data.errors import NoSuchSplitError
from keras_convnext.data.held_out import hold_out
from keras_convnext.data.images import evaluation_image
from keras_convnext.data.source import Source
from keras_convnext.data.sources import open_source
from keras_convnext.training.layout import Layout

# No branch here depends on a tensor, and AutoGraph would rewrite each function for seconds.
_as_it_stands = tf.autograph.experimental.do_not_convert


def open_training_data(
    data: str | Path, validation_data: str | Path | None, recipe: Classification
) -> tuple[Source, Source | None]:
    """Opens the training images and, if there are any, the validation images.

    Args:
        data: str or path. As in `open_source`, with a split "train".
        validation_data: str, path or None. Other data to validate on, whose classes are matched by
            name; None for the split "validation" of `data`, or else the recipe's
            `validation_share` of the training images.
        recipe: Classification. The recipe.

    Raises:
        DataError: If classes have too few images, images are broken, there is no such data, or the
            validation images are a set with a rule of its own, such as ImageNet-A.
        ValueError: If training and validation images have other classes.
    """
    training = open_source(data, "train")
    check_images(training, least=2)  # a single image of a class would only be memorized
    if validation_data is not None:
        refuse_suite_data(validation_data)
    try:
        validation = open_source(validation_data or data, "validation")
    except NoSuchSplitError:
        if validation_data is not None:
            raise
        share = recipe.input.validation_share
        return hold_out(training, share, recipe.seed) if share else (training, None)
    refuse_suite_source(validation, len(training.classes), training.classes)
    check_images(validation)
    if validation.classes == training.classes:
        return training, validation
    if validation_data is None:
        raise ValueError(
            "Both splits must have the same classes. To validate on some of them, or on other "
            "classes too, pass validation_data (--validation-data). "
            f"Received: {training.classes[:5]}... and {validation.classes[:5]}..."
        )
    return training, Relabeled(validation, training.classes)


def training_batches(
    source: Source, recipe: Classification, layout: Layout, first_update: int = 0
) -> tf.data.Dataset:
    """Reads and augments the images of this process endlessly, starting at any update.

    Each image and its mixing partner depend only on the seed, the epoch and its position in the
    epoch. A resumed run therefore sees the same images as an uninterrupted one, and so does a run
    on other devices. With several processes, the partners are the same as with one if
    `mixing_batch` divides the images of each process in an update.

    Args:
        source: Source. The training images.
        recipe: Classification. The recipe for the network that is trained.
        layout: Layout. How the batch is distributed.
        first_update: int. Number of updates already made. Defaults to 0.

    Returns:
        Dataset of (images, targets): float32 (N, size, size, 3), RGB in 0..255, and float32
        (N, classes), where N is the batch size of all devices of this process.

    Raises:
        ValueError: If there is only one image to mix.
    """
    classes = len(source.classes)
    batch = layout.process_batch
    images, together = batch * layout.accumulated, recipe.targets.mixing_batch
    mixes = recipe.targets.mixup > 0 or recipe.targets.cutmix > 0
    groups = group_sizes(images, together) if mixes else (batch,)

    @_as_it_stands
    def augmented(
        encoded: tf.Tensor, label: tf.Tensor, epoch: tf.Tensor, position: tf.Tensor
    ) -> tuple[tf.Tensor, ...]:
        image = training_image(
            encoded,
            _seed(recipe, epoch, position),
            recipe.input.size,
            scale=recipe.input.crop_scale,
            ratio=recipe.input.crop_ratio,
            horizontal_flip=recipe.input.horizontal_flip,
            rand_augment=recipe.input.rand_augment,
            color_jitter=recipe.input.color_jitter,
            random_erasing=recipe.input.random_erasing,
        )
        targets = smoothed_targets(label, classes, recipe.targets.label_smoothing)
        return image, targets, epoch, position

    @_as_it_stands
    def mixed(
        images: tf.Tensor, targets: tf.Tensor, epochs: tf.Tensor, positions: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        if not mixes:
            return images, targets
        # Negative positions, so that these seeds differ from those of the images.
        seed = _seed(recipe, epochs[0], -1 - positions[0])
        chances = recipe.targets.mixing_probability, recipe.targets.mixing_switch
        return mix(images, targets, seed, recipe.targets.mixup, recipe.targets.cutmix, *chances)

    parallel = {"num_parallel_calls": tf.data.AUTOTUNE, "deterministic": True}
    records = source.stream(
        recipe.seed,
        first_update * recipe.batch.batch_size,
        (layout.process, layout.processes),
        recipe.batch.batch_size,
    )
    common = math.gcd(*groups)
    batches = records.map(augmented, **parallel).batch(common, drop_remainder=True)
    if set(groups) != {common}:
        batches = batches.rebatch(groups)  # these sizes in turn
    batches = batches.map(mixed, **parallel)
    if set(groups) != {batch}:
        batches = batches.rebatch(batch, drop_remainder=True)
    return batches.prefetch(tf.data.AUTOTUNE)


def _seed(recipe: Classification, epoch: tf.Tensor, position: tf.Tensor) -> tf.Tensor:
    of_epoch = tf.stack([tf.constant(recipe.seed, tf.int64), epoch])
    return tf.random.experimental.stateless_fold_in(of_epoch, position)


def evaluation_batches(source: Source, recipe: Classification, layout: Layout) -> tf.data.Dataset:
    """Reads each image of this process once, prepared as in the published evaluation.

    All processes have the same number of batches of the same size. The last batches are padded with
    black images of weight 0, which images without a class (label -1) have as well.

    Returns:
        Dataset of (images, targets, weights): uint8 (N, size, size, 3), float32 (N, classes) and
        float32 (N,).
    """
    whole_batch = layout.process_batch * layout.processes
    count = -(-source.size // whole_batch)

    @_as_it_stands
    def decoded(encoded: tf.Tensor, label: tf.Tensor, position: tf.Tensor) -> tuple[tf.Tensor, ...]:
        image = evaluation_image(encoded, recipe.input.size)
        weight = tf.cast(label >= 0, tf.float32)
        return image, smoothed_targets(label, len(source.classes), 0.0), weight

    images = source.records(
        shuffled=False, shard=(layout.process, layout.processes), batch=whole_batch
    ).map(decoded, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
    blank = tf.data.Dataset.from_tensors(
        tuple(tf.zeros(spec.shape, spec.dtype) for spec in images.element_spec)
    )
    batches = images.concatenate(blank.repeat()).batch(layout.process_batch).take(count)
    return batches.prefetch(tf.data.AUTOTUNE)
