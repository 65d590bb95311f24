"""Batches of masked images and of the patches to predict."""

import tensorflow as tf

from keras_convnext.data.images import evaluation_image, training_crop
from keras_convnext.data.source import Source
from keras_convnext.normalization import IMAGENET
from keras_convnext.pretraining.losses import normalized, patches_of
from keras_convnext.pretraining.recipes import Pretraining
from keras_convnext.pretraining.settings import visible_patches
from keras_convnext.training.layout import Layout

_FLIP, _MASK = 1, 2  # folded into the seed of an image


def training_batches(
    source: Source, recipe: Pretraining, stride: int, layout: Layout, first_update: int = 0
) -> tf.data.Dataset:
    """Reads, crops and masks the images of this process endlessly, starting at any update.

    The crop and mask of an image depend only on the seed, the epoch and its position in the epoch.

    Args:
        source: Source. The images; their labels are not used.
        recipe: Pretraining. The recipe.
        stride: int. Stride of the network's last feature map: the side of a predicted patch.
        layout: Layout. How the batch is distributed.
        first_update: int. Number of updates already made. Defaults to 0.

    Returns:
        Dataset of (inputs, targets), as `masked` returns them, in batches.
    """
    own = recipe.input

    def prepared(
        encoded: tf.Tensor, _: tf.Tensor, epoch: tf.Tensor, position: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        of_epoch = tf.stack([tf.constant(recipe.seed, tf.int64), epoch])
        seed = tf.random.experimental.stateless_fold_in(of_epoch, position)
        image = training_crop(encoded, seed, own.size, own.crop_scale)
        chance = tf.random.stateless_uniform((), _folded(seed, _FLIP))
        image = tf.where(chance < own.horizontal_flip, image[:, ::-1], image)
        return masked(image, _folded(seed, _MASK), recipe, stride)

    records = source.stream(
        recipe.seed,
        first_update * recipe.batch.batch_size,
        (layout.process, layout.processes),
        recipe.batch.batch_size,
    )
    parallel = {"num_parallel_calls": tf.data.AUTOTUNE, "deterministic": True}
    batches = records.map(tf.autograph.experimental.do_not_convert(prepared), **parallel)
    return batches.batch(layout.process_batch, drop_remainder=True).prefetch(tf.data.AUTOTUNE)


def evaluation_images(source: Source, recipe: Pretraining, stride: int) -> tf.data.Dataset:
    """Reads each image once, cropped and masked in the same way each time.

    Returns:
        Dataset of (inputs, targets), as `masked` returns them.
    """

    def prepared(encoded: tf.Tensor, _: tf.Tensor, position: tf.Tensor) -> tuple[tf.Tensor, ...]:
        image = evaluation_image(encoded, recipe.input.size)
        return masked(image, tf.stack([tf.constant(-1, tf.int64), position]), recipe, stride)

    return source.records(shuffled=False).map(
        tf.autograph.experimental.do_not_convert(prepared),
        num_parallel_calls=tf.data.AUTOTUNE,
        deterministic=True,
    )


def masked(
    image: tf.Tensor, seed: tf.Tensor, recipe: Pretraining, stride: int
) -> tuple[tf.Tensor, tf.Tensor]:
    """Hides random patches of an image.

    Args:
        image: tensor (size, size, 3), RGB in 0..255.
        seed: int tensor (2,).
        recipe: Pretraining. The recipe.
        stride: int. Side of a predicted patch, in pixels.

    Returns:
        float32 (size, size, 4), the pixels and 1 where they are hidden; and float32
        (size / stride, size / stride, stride * stride * 3 + 1), the values of each patch and 1 if
        it is hidden.
    """
    own, size = recipe.masking, recipe.input.size
    image = tf.cast(image, tf.float32)
    hidden = hidden_patches(seed, size // own.patch, own.ratio)
    of_pixels = _enlarged(hidden, own.patch)  # (size, size, 1)
    mean, std = tf.constant(IMAGENET.mean), tf.constant(IMAGENET.std)
    patches = patches_of((image / 255 - mean) / std, stride)
    patches = normalized(patches) if own.normalize else patches
    of_cells = _enlarged(hidden, own.patch // stride)
    return tf.concat([image, of_pixels], -1), tf.concat([patches, of_cells], -1)


def hidden_patches(seed: tf.Tensor, side: int, ratio: float) -> tf.Tensor:
    """Draws which of side x side patches are hidden: 1 or 0, of shape (side, side)."""
    visible = visible_patches(side**2, ratio)
    order = tf.argsort(tf.random.stateless_uniform((side**2,), seed))
    hidden = tf.scatter_nd(order[visible:, None], tf.ones(side**2 - visible), (side**2,))
    return tf.reshape(hidden, (side, side))


def _enlarged(mask: tf.Tensor, factor: int) -> tf.Tensor:
    return tf.repeat(tf.repeat(mask, factor, 0), factor, 1)[..., None]


def _folded(seed: tf.Tensor, number: int) -> tf.Tensor:
    return tf.random.experimental.stateless_fold_in(seed, number)
