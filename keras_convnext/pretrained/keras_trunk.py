"""Finds the ConvNeXt in a file of weights that Keras saved, alone or nested in another model."""

import re
from collections.abc import Mapping

from keras_convnext.pretrained.addresses import named
from keras_convnext.pretrained.errors import CheckpointError
from keras_convnext.pretrained.h5_file import H5Tensor
from keras_convnext.pretrained.layouts import ABOVE, HDF5_LAYOUTS, HEAD_KERNEL, LAYOUTS, Place
from keras_convnext.pretrained.names import is_skipped, place_of
from keras_convnext.pretrained.source import Source, source_of
from keras_convnext.pretrained.trunks import check_whole, listed
from keras_convnext.variants import Variant

# The first convolution of a network: ours, and that of keras.applications.
_STEMS = ("layers/patch_conv2d/vars/0", "layers/sequential/layers/conv2d/vars/0")
# What others build their own layers around a trunk with, by the beginning of the name.
_OWN = ("dense", "layers/dense", "layers/batch_normalization", "layers/functional", "layers/model")


_DENSE = re.compile(r"(?:.+/)?dense(_\d+)?/vars/0")


def keras_prefixes(tensors: Mapping[str, H5Tensor]) -> list[str]:
    """Finds the models within a model that are a ConvNeXt, by what precedes their layers."""
    return [key.removesuffix(stem) for stem in _STEMS for key in tensors if key.endswith(stem)]


def keras_trunk(
    tensors: Mapping[str, H5Tensor], prefix: str, expected: Variant | None
) -> tuple[str, Variant, dict[Place, Source], list[str]]:
    """Recognizes the layers of a network.

    Args:
        tensors: dict from names to tensors.
        prefix: str. What precedes the layers of the network.
        expected: Variant or None. What to take it for where the file leaves it open.

    Returns:
        The layout, the network, its tensors by their places, and the names of other tensors.

    Raises:
        CheckpointError: If it is no ConvNeXt, or lacks a tensor, or has one of another shape.
    """
    within = {key.removeprefix(prefix): t for key, t in tensors.items() if key.startswith(prefix)}
    around = {key: each for key, each in tensors.items() if not key.startswith(prefix)}
    if any(each.dtype.kind in "iub" and len(each.shape) == 2 for each in within.values()):
        raise CheckpointError(
            "The network is quantized, and its weights as they were before are not in the file. "
            "Load it with keras.models.load_model, or take the file from before quantize was called"
        )
    head = {} if "layers/dense/vars/0" in within else _head_alone(around)
    within |= head
    state = {key: each for key, each in named(within, expected).items() if not is_skipped(key)}
    read = {layout: {k: place_of(k, LAYOUTS[layout]) for k in state} for layout in HDF5_LAYOUTS}
    layout = max(read, key=lambda name: sum(place is not None for place in read[name].values()))
    sources: dict[Place, Source] = {}
    unknown = []
    for key, known in read[layout].items():
        if known is None:
            unknown.append(key)
            continue
        place, form = known
        source = source_of(form, state[key])
        if source is None:
            raise CheckpointError(
                f"{key} has {len(form.axes)} axes in ConvNeXt. "
                f"Received: a shape of {state[key].shape}"
            )
        if place in sources:
            raise CheckpointError(f"{sources[place].key} and {key} are the same tensor")
        sources[place] = source
    if len(unknown) > len(sources):
        raise CheckpointError(
            f"Not a ConvNeXt in any layout known here: it has no place for {listed(unknown)}"
        )
    if foreign := [key for key in unknown if not key.startswith(_OWN)]:
        raise CheckpointError(f"ConvNeXt has no place for the tensors {listed(foreign)}")
    if unknown:  # of several dense layers the first is not the head
        sources = {place: each for place, each in sources.items() if place.layer != "head"}
    trunk = {place: each for place, each in sources.items() if place.layer not in ABOVE}
    network = check_whole(
        {place: each.shape for place, each in trunk.items()},
        {place: each.key for place, each in trunk.items()},
    )
    has_norm = Place("norm", "gamma") in sources  # or the classifier follows something else
    if HEAD_KERNEL in sources and not (
        has_norm and sources[HEAD_KERNEL].shape[0] == network.dims[-1]
    ):
        sources = {place: each for place, each in sources.items() if place.layer != "head"}
    used = {id(source.tensor) for source in sources.values()}
    others = {**around, **{key: each for key, each in state.items() if key not in head}}
    return layout, network, sources, [k for k, each in others.items() if id(each) not in used]


def _head_alone(around: Mapping[str, H5Tensor]) -> dict[str, H5Tensor]:
    """The `Dense` that is all there is around a network, as if it were the network's own."""
    kernel = next(filter(_DENSE.fullmatch, around), "")
    bias = f"{kernel[:-1]}1"
    if set(around) != {kernel, bias}:
        return {}
    return {"layers/dense/vars/0": around[kernel], "layers/dense/vars/1": around[bias]}
