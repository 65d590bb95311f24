"""Mixup, CutMix and label smoothing, as in the official code.

References:
    - "mixup: Beyond Empirical Risk Minimization", Zhang et al., arXiv 1710.09412.
    - "CutMix: Regularization Strategy to Train Strong Classifiers with Localizable Features",
      Yun et al., arXiv 1905.04899.
    - timm, data/mixup.py, mode "batch".
"""

import tensorflow as tf


def smoothed_targets(labels: tf.Tensor, classes: int, label_smoothing: float = 0.1) -> tf.Tensor:
    """Converts labels to smoothed one-hot targets.

    Args:
        labels: int tensor (...). Class indices.
        classes: int. Number of classes.
        label_smoothing: float. Probability distributed evenly over all classes. Defaults to 0.1.

    Returns:
        float32 tensor (..., classes), whose rows sum to 1.
    """
    share = label_smoothing / classes
    return tf.one_hot(labels, classes, 1.0 - label_smoothing + share, share)


def mix(
    images: tf.Tensor,
    targets: tf.Tensor,
    seed: tf.Tensor,
    mixup: float = 0.8,
    cutmix: float = 1.0,
    probability: float = 1.0,
    switch: float = 0.5,
) -> tuple[tf.Tensor, tf.Tensor]:
    """Mixes each image of a batch, and its targets, with those of a partner.

    One share is drawn for the whole batch. With mixup, each image is a weighted mean of the two;
    with CutMix, a box is copied from the partner, and the share is that of the remaining area.
    Partners are those of the reversed batch, as in timm; in a batch of odd size, which timm
    refuses, each image's partner is the next one.

    Example:

    ```python
    batches = examples.batch(64, drop_remainder=True)
    batches = batches.enumerate().map(lambda i, batch: mix(*batch, seed=tf.stack([7, i])))
    ```

    Args:
        images: float32 tensor (N, H, W, 3), with N at least 2.
        targets: float32 tensor (N, classes).
        seed: int tensor (2,). The same seed gives the same result.
        mixup: float. Both parameters of the beta distribution of mixup's share, or 0 to disable
            mixup. Defaults to 0.8.
        cutmix: float. The same for CutMix. Defaults to 1.0.
        probability: float. Probability that a batch is mixed. Defaults to 1.0.
        switch: float. Probability of CutMix instead of mixup, if both are enabled. Defaults to 0.5.

    Returns:
        Pair of float32 tensors, the mixed images and targets.

    Raises:
        ValueError: If `mixup` or `cutmix` is negative, or the batch is known to have one image.
    """
    if min(mixup, cutmix) < 0:
        raise ValueError(
            "mixup and cutmix must be positive parameters of a beta distribution, or 0 to disable "
            f"them. Received: mixup={mixup}, cutmix={cutmix}"
        )
    if mixup == cutmix == 0:
        return images, targets
    if images.shape[0] == 1:
        raise ValueError(
            f"A single image has no partner to be mixed with. Received: shape={images.shape}"
        )
    cuts, share, center = draw(seed, mixup, cutmix, probability, switch)
    weights, share = weights_of_images(tf.shape(images)[1:3], cuts, share, center)
    partners = _partners(tf.shape(images)[0])
    images = images * weights + tf.gather(images, partners) * (1 - weights)
    return images, targets * share + tf.gather(targets, partners) * (1 - share)


def _partners(count: tf.Tensor) -> tf.Tensor:
    """Returns the index of each image's partner, int32 (N,)."""
    images = tf.range(count)
    # The middle image of a reversed batch of odd size would be its own partner.
    return tf.where(count % 2 == 0, count - 1 - images, (images + 1) % count)


def group_sizes(images: int, most: int) -> tuple[int, ...]:
    """Divides consecutive images into groups that share one draw of `mix`.

    Each group has `most` images, and the last one has the rest. A single image joins the group
    before it.

    Example:

    ```python
    group_sizes(1024, 128)  # (128, 128, 128, 128, 128, 128, 128, 128)
    group_sizes(99, 128)  # (99,)
    group_sizes(257, 128)  # (128, 129)
    ```

    Args:
        images: int. Number of images.
        most: int. Number of images in a group, such as a recipe's `mixing_batch`.

    Returns:
        Tuple of int, each at least 2.

    Raises:
        ValueError: If `images` or `most` is less than 2.
    """
    if min(images, most) < 2:
        raise ValueError(
            "Mixup and CutMix need at least two images. Set mixing_batch, and batch_size per "
            "machine, to 2 or more, or disable them with mixup=0 and cutmix=0. Received: "
            f"mixing_batch={most}, with {images} images per update and machine"
        )
    full, rest = divmod(images, most)
    sizes = [most] * full + [rest] * (rest > 0)
    if rest == 1 and full:
        sizes[-2:] = [most + 1]
    return tuple(sizes)


def draw(
    seed: tf.Tensor, mixup: float, cutmix: float, probability: float, switch: float
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Draws the random parameters for mixing one batch.

    Returns:
        bool (), whether to use CutMix; float32 (), the share that an image keeps; float32 (2,), the
        center of CutMix's box relative to the height and width, in 0..1.
    """
    seeds = tf.random.split(seed, 3)
    uniform = tf.random.stateless_uniform((4,), seeds[0], alg="philox")
    cuts = (uniform[0] < switch) if mixup and cutmix else tf.constant(cutmix > 0)
    alpha = tf.cast(tf.where(cuts, cutmix, mixup), tf.float64)
    # A beta variate from two gamma variates, in double precision because a small alpha makes them
    # very small.
    own, partner = (tf.random.stateless_gamma((), part, alpha, dtype=tf.float64) for part in
                    (seeds[1], seeds[2]))  # fmt: skip
    share = tf.cast(own / (own + partner), tf.float32)
    return cuts, tf.where(uniform[1] < probability, share, 1.0), uniform[2:]


def weights_of_images(
    sides: tf.Tensor, cuts: tf.Tensor, share: tf.Tensor, center: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor]:
    """Converts the result of `draw` to pixel weights for images with the given sides, int32 (2,).

    Returns:
        float32 (H, W, 1), the weight of an image's own pixels (0 or 1 for CutMix); and float32 (),
        the weight of its own targets.
    """
    # A box with (1 - share) of the area, centered on a pixel and clipped to the image.
    cut = tf.cast(tf.cast(sides, tf.float32) * tf.sqrt(1 - share), tf.int32)
    middle = tf.cast(center * tf.cast(sides, tf.float32), tf.int32)
    start = tf.clip_by_value(middle - cut // 2, 0, sides)
    end = tf.clip_by_value(middle + (cut + 1) // 2, 0, sides)
    rows, columns = tf.range(sides[0])[:, None], tf.range(sides[1])[None]
    boxed = (rows >= start[0]) & (rows < end[0]) & (columns >= start[1]) & (columns < end[1])
    left = 1 - tf.reduce_prod(end - start) / tf.reduce_prod(sides)
    weights = tf.where(cuts, 1 - tf.cast(boxed, tf.float32), share)
    return weights[..., None], tf.where(cuts, tf.cast(left, tf.float32), share)
