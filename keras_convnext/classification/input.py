"""Batches of pixels and targets for training and validation."""

import math

import tensorflow as tf

from keras_convnext.classification.augmentation import training_image
from keras_convnext.classification.mixing import mix, smoothed_targets
from keras_convnext.classification.recipes import Recipe
from keras_convnext.data.images import evaluation_image
from keras_convnext.data.source import Source
from keras_convnext.training.layout import Layout

# No branch here depends on a tensor, and AutoGraph would rewrite each function for seconds.
_as_it_stands = tf.autograph.experimental.do_not_convert


def training_batches(
    source: Source, recipe: Recipe, layout: Layout, first_update: int = 0
) -> tf.data.Dataset:
    """Reads and augments the images of this process endlessly, starting at any update.

    Each image and its mixing partner depend only on the seed, the epoch and its position in the
    epoch. A resumed run therefore sees the same images as an uninterrupted one, and so does a run
    on other devices if `mixing_batch` divides the batch of each process.

    Args:
        source: Source. The training images.
        recipe: Recipe. The recipe for the network that is trained.
        layout: Layout. How the batch is distributed.
        first_update: int. Number of updates already made. Defaults to 0.

    Returns:
        Dataset of (images, targets): float32 (N, size, size, 3), RGB in 0..255, and float32
        (N, classes), where N is the batch size of all devices of this process.
    """
    classes = len(source.classes)
    batch = layout.process_batch
    mixes = recipe.mixup > 0 or recipe.cutmix > 0
    group = math.gcd(batch, recipe.mixing_batch) if mixes else batch

    @_as_it_stands
    def augmented(
        encoded: tf.Tensor, label: tf.Tensor, epoch: tf.Tensor, position: tf.Tensor
    ) -> tuple[tf.Tensor, ...]:
        image = training_image(
            encoded,
            _seed(recipe, epoch, position),
            recipe.size,
            scale=recipe.crop_scale,
            ratio=recipe.crop_ratio,
            horizontal_flip=recipe.horizontal_flip,
            rand_augment=recipe.rand_augment,
            color_jitter=recipe.color_jitter,
            random_erasing=recipe.random_erasing,
        )
        targets = smoothed_targets(label, classes, recipe.label_smoothing)
        return image, targets, epoch, position

    @_as_it_stands
    def mixed(
        images: tf.Tensor, targets: tf.Tensor, epochs: tf.Tensor, positions: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        if not mixes:
            return images, targets
        # Negative positions, so that these seeds differ from those of the images.
        seed = _seed(recipe, epochs[0], -1 - positions[0])
        chances = recipe.mixing_probability, recipe.mixing_switch
        return mix(images, targets, seed, recipe.mixup, recipe.cutmix, *chances)

    parallel = {"num_parallel_calls": tf.data.AUTOTUNE, "deterministic": True}
    records = source.stream(
        recipe.seed,
        first_update * recipe.batch_size,
        (layout.process, layout.processes),
        recipe.batch_size,
    )
    groups = records.map(augmented, **parallel).batch(group, drop_remainder=True)
    batches = groups.map(mixed, **parallel)
    if group != batch:
        batches = batches.rebatch(batch, drop_remainder=True)
    return batches.prefetch(tf.data.AUTOTUNE)


def _seed(recipe: Recipe, epoch: tf.Tensor, position: tf.Tensor) -> tf.Tensor:
    of_epoch = tf.stack([tf.constant(recipe.seed, tf.int64), epoch])
    return tf.random.experimental.stateless_fold_in(of_epoch, position)


def evaluation_batches(source: Source, recipe: Recipe, layout: Layout) -> tf.data.Dataset:
    """Reads each image of this process once, prepared as in the published evaluation.

    All processes have the same number of batches of the same size. The last batches are padded with
    black images of weight 0.

    Returns:
        Dataset of (images, targets, weights): uint8 (N, size, size, 3), float32 (N, classes) and
        float32 (N,).
    """
    whole_batch = layout.process_batch * layout.processes
    count = -(-source.size // whole_batch)

    @_as_it_stands
    def decoded(encoded: tf.Tensor, label: tf.Tensor, position: tf.Tensor) -> tuple[tf.Tensor, ...]:
        image = evaluation_image(encoded, recipe.size)
        return image, smoothed_targets(label, len(source.classes), 0.0), tf.ones(())

    images = source.records(
        shuffled=False, shard=(layout.process, layout.processes), batch=whole_batch
    ).map(decoded, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
    blank = tf.data.Dataset.from_tensors(
        tuple(tf.zeros(spec.shape, spec.dtype) for spec in images.element_spec)
    )
    batches = images.concatenate(blank.repeat()).batch(layout.process_batch).take(count)
    return batches.prefetch(tf.data.AUTOTUNE)
