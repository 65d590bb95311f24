"""The layout map that shards a network's weights over devices, for `keras.distribution`."""

import keras

# The axis along which each variable is split. All other variables are replicated.
_SPLIT = {
    "pwconv1/kernel": 1,  # (C, 4C): each device computes some of the 4C channels,
    "pwconv1/bias": 0,
    "pwconv2/kernel": 0,  # (4C, C): and its part of the sum over them
}


def layout_map(
    mesh: keras.distribution.DeviceMesh, axis: str = "model"
) -> keras.distribution.LayoutMap:
    """Shards the pointwise layers of all blocks, which hold nearly all weights, over devices.

    Each device holds a share of the 4C channels between the two layers, so that a block needs a
    single all-reduce. Works with JAX.

    Example:

    ```python
    mesh = keras.distribution.DeviceMesh((2, 4), ("batch", "model"))
    keras.distribution.set_distribution(keras.distribution.ModelParallel(
        layout_map=keras_convnext.layout_map(mesh), batch_dim_name="batch"
    ))
    model = keras_convnext.ConvNeXtXLarge(weights="imagenet22k")
    ```

    Args:
        mesh: keras.distribution.DeviceMesh.
        axis: str. The mesh axis to shard over. Its size must divide 4C of every stage. Defaults to
            "model".

    Returns:
        A keras.distribution.LayoutMap.

    Raises:
        ValueError: If the mesh has no axis of this name.

    References:
        Shoeybi et al., "Megatron-LM", arXiv 1909.08053, section 3.
    """
    if axis not in mesh.axis_names:
        raise ValueError(f"axis must be one of {', '.join(mesh.axis_names)}. Received: axis={axis}")
    layouts = keras.distribution.LayoutMap(mesh)
    for variable, split in _SPLIT.items():
        rank = 1 if variable.endswith("bias") else 2
        layouts[f".*{variable}"] = tuple(axis if each == split else None for each in range(rank))
    return layouts
