"""Batches of pixels and classes for training."""

from pathlib import Path

import tensorflow as tf

from keras_convnext.data.checks import check_images
from keras_convnext.data.errors import NoSuchSplitError
from keras_convnext.segmentation.augmentation import training_crop
from keras_convnext.segmentation.recipes import Segmentation
from keras_convnext.segmentation.source import PairSource, open_pairs
from keras_convnext.training.layout import Layout


def open_training_data(
    data: str | Path, validation_data: str | Path | None, recipe: Segmentation
) -> tuple[PairSource, PairSource | None]:
    """Opens the training images and, if there are any, the validation images.

    Args:
        data: str or path. As in `open_pairs`, with a split "train".
        validation_data: str, path or None. Other data to validate on, whose masks have the same
            labels; None for the split "validation" of `data`, or else the recipe's
            `validation_share` of the training images.
        recipe: Segmentation. The recipe.

    Raises:
        DataError: If images or masks are missing, broken or inconsistent, or there is no such data.
    """
    training = open_pairs(data, "train", labels=recipe.labels)
    check_images(training)
    try:
        validation = open_pairs(validation_data or data, "validation", meaning=training.meaning)
    except NoSuchSplitError:
        if validation_data is not None:
            raise
        share = recipe.input.validation_share
        return training.hold_out(share, recipe.seed) if share else (training, None)
    check_images(validation)
    return training, validation


def training_batches(
    source: PairSource, recipe: Segmentation, layout: Layout, first_update: int = 0
) -> tf.data.Dataset:
    """Reads and augments the images of this process endlessly, starting at any update.

    Each crop depends only on the seed, the epoch and the position in the epoch. A resumed run
    therefore sees the same crops as an uninterrupted one, and so does a run on other devices.

    Args:
        source: PairSource. The training images.
        recipe: Segmentation. The recipe.
        layout: Layout. How the batch is distributed.
        first_update: int. Number of updates already made. Defaults to 0.

    Returns:
        Dataset of (images, classes): float32 (N, size, size, 3), RGB in 0..255, and int32
        (N, size, size), where N is the batch size of all devices of this process.
    """
    table = source.meaning.table

    @tf.autograph.experimental.do_not_convert
    def augmented(
        encoded: tf.Tensor, index: tf.Tensor, epoch: tf.Tensor, position: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        of_epoch = tf.stack([tf.constant(recipe.seed, tf.int64), epoch])
        seed = tf.random.experimental.stateless_fold_in(of_epoch, position)
        numbers = table.decode(source.mask(index))
        return training_crop(encoded, numbers, seed, recipe.input, table.lookup)

    records = source.stream(
        recipe.seed,
        first_update * recipe.batch.batch_size,
        (layout.process, layout.processes),
        recipe.batch.batch_size,
    )
    crops = records.map(augmented, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
    batches = crops.batch(layout.process_batch, drop_remainder=True)
    return batches.prefetch(tf.data.AUTOTUNE)
