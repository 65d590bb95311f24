"""How the weights of a network are split over devices, for `keras.distribution`."""

import keras

# variable: which of its axes is split; all others are copied to every device
_SPLIT = {
    "pwconv1/kernel": 1,  # (C, 4C): each device computes some of the wide channels,
    "pwconv1/bias": 0,
    "pwconv2/kernel": 0,  # (4C, C): and its part of the sum over them
}


def layout_map(
    mesh: keras.distribution.DeviceMesh, axis: str = "model"
) -> keras.distribution.LayoutMap:
    """Splits the pointwise layers of all blocks, which hold nearly all weights, over devices.

    Each device has a share of the 4C channels between the two layers, so a block takes one sum over
    the devices and no other exchange. It works under JAX.

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
        axis: str. The axis of the mesh to split over; it divides 4C of every stage. Defaults to
            "model".

    Returns:
        A keras.distribution.LayoutMap.

    Raises:
        ValueError: If the mesh has no such axis.

    References:
        Shoeybi et al., "Megatron-LM", arXiv 1909.08053, section 3.
    """
    if axis not in mesh.axis_names:
        raise ValueError(f"axis is one of {', '.join(mesh.axis_names)}. Received: axis={axis}")
    layouts = keras.distribution.LayoutMap(mesh)
    for variable, split in _SPLIT.items():
        rank = 1 if variable.endswith("bias") else 2
        layouts[f".*{variable}"] = tuple(axis if each == split else None for each in range(rank))
    return layouts
