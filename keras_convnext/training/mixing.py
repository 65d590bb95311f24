"""Mixup, CutMix and label smoothing, as in the official code.

References:
    - "mixup: Beyond Empirical Risk Minimization", Zhang et al., arXiv 1710.09412.
    - "CutMix: Regularization Strategy to Train Strong Classifiers with Localizable Features",
      Yun et al., arXiv 1905.04899.
    - timm, data/mixup.py, mode "batch".
"""

import tensorflow as tf


def smoothed_targets(labels: tf.Tensor, classes: int, label_smoothing: float = 0.1) -> tf.Tensor:
    """Turns labels into probabilities that leave a little for every class.

    Args:
        labels: int tensor (...). Indices of the classes.
        classes: int. How many there are.
        label_smoothing: float. What is shared out evenly among all classes. Defaults to 0.1.

    Returns:
        float32 tensor (..., classes), each row adding up to 1.
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
    """Mixes each image of a batch, and its targets, with its partner in the reversed batch.

    One share is drawn for the whole batch: with mixup each image is a weighted mean of the two,
    with CutMix a box of it comes from the partner, and the share is that of the area that is left.

    Example:

    ```python
    batches = examples.batch(64, drop_remainder=True)
    batches = batches.enumerate().map(lambda i, batch: mix(*batch, seed=tf.stack([7, i])))
    ```

    Args:
        images: float32 tensor (N, H, W, 3). N is even, or the middle image is left as it is.
        targets: float32 tensor (N, classes).
        seed: int tensor (2,). The same seed mixes in the same way.
        mixup: float. Both parameters of the beta distribution of mixup's share, 0 for no mixup.
            Defaults to 0.8.
        cutmix: float. The same of CutMix. Defaults to 1.0.
        probability: float. Share of the batches that are mixed. Defaults to 1.0.
        switch: float. Share of those to which CutMix is applied, where both are on. Defaults
            to 0.5.

    Returns:
        Pair of float32 tensors, the mixed images and targets.

    Raises:
        ValueError: If `mixup` or `cutmix` is negative.
    """
    if min(mixup, cutmix) < 0:
        raise ValueError(
            "mixup and cutmix are parameters of a beta distribution, or 0 for none. "
            f"Received: mixup={mixup}, cutmix={cutmix}"
        )
    if mixup == cutmix == 0:
        return images, targets
    cuts, share, centre = draw(seed, mixup, cutmix, probability, switch)
    weights, share = weights_of_images(tf.shape(images)[1:3], cuts, share, centre)
    images = images * weights + tf.reverse(images, [0]) * (1 - weights)
    return images, targets * share + tf.reverse(targets, [0]) * (1 - share)


def draw(
    seed: tf.Tensor, mixup: float, cutmix: float, probability: float, switch: float
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Draws how one batch is mixed.

    Returns:
        bool (), CutMix or mixup; float32 (), the share that an image keeps; float32 (2,), where the
        centre of CutMix's box lies, in 0..1 of the height and the width.
    """
    seeds = tf.random.split(seed, 3)
    uniform = tf.random.stateless_uniform((4,), seeds[0], alg="philox")
    cuts = (uniform[0] < switch) if mixup and cutmix else tf.constant(cutmix > 0)
    alpha = tf.cast(tf.where(cuts, cutmix, mixup), tf.float64)
    # Two gammas make a beta. In double precision, as a small alpha makes them very small.
    own, partner = (tf.random.stateless_gamma((), part, alpha, dtype=tf.float64) for part in
                    (seeds[1], seeds[2]))  # fmt: skip
    share = tf.cast(own / (own + partner), tf.float32)
    return cuts, tf.where(uniform[1] < probability, share, 1.0), uniform[2:]


def weights_of_images(
    sides: tf.Tensor, cuts: tf.Tensor, share: tf.Tensor, centre: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor]:
    """Turns what `draw` drew into a weight for each pixel, for images of those sides, int32 (2,).

    Returns:
        float32 (H, W, 1), how much of a pixel is the image's own, 0 or 1 for CutMix; and float32
        (), how much of the targets is.
    """
    # A box of (1 - share) of the area, around a pixel of the image and cut off at its rim.
    cut = tf.cast(tf.cast(sides, tf.float32) * tf.sqrt(1 - share), tf.int32)
    middle = tf.cast(centre * tf.cast(sides, tf.float32), tf.int32)
    start = tf.clip_by_value(middle - cut // 2, 0, sides)
    end = tf.clip_by_value(middle + (cut + 1) // 2, 0, sides)
    rows, columns = tf.range(sides[0])[:, None], tf.range(sides[1])[None]
    boxed = (rows >= start[0]) & (rows < end[0]) & (columns >= start[1]) & (columns < end[1])
    left = 1 - tf.reduce_prod(end - start) / tf.reduce_prod(sides)
    weights = tf.where(cuts, 1 - tf.cast(boxed, tf.float32), share)
    return weights[..., None], tf.where(cuts, tf.cast(left, tf.float32), share)
