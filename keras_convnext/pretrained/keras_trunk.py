"""Finds the ConvNeXt in a weight file saved by Keras, alone or nested in another model."""

import re
from collections.abc import Collection, Mapping

from keras_convnext.pretrained.addresses import named
from keras_convnext.pretrained.errors import CheckpointError
from keras_convnext.pretrained.h5_file import H5Tensor
from keras_convnext.pretrained.layouts import (
    ABOVE,
    HDF5_LAYOUTS,
    HEAD_KERNEL,
    HIDDEN_KERNEL,
    LAYOUTS,
    Place,
)
from keras_convnext.pretrained.names import is_skipped, place_of
from keras_convnext.pretrained.networks import with_hidden
from keras_convnext.pretrained.source import Source, source_of
from keras_convnext.pretrained.trunks import check_whole, listed
from keras_convnext.variants import Variant

# The first convolution of our networks, and of those in keras.applications.
_STEMS = ("layers/patch_conv2d/vars/0", "layers/sequential/layers/conv2d/vars/0")
# Address prefixes of layers that users commonly add to a trunk.
_OWN = ("dense", "layers/dense", "layers/batch_normalization", "layers/functional", "layers/model")

# In a legacy file, where layers have names, those of a network.
_NAMES_WITHIN = re.compile(r"(^|_)(stem|downsampl\w+|stages?_\d+|blocks_\d+)(_|\.)")
_DENSE = re.compile(r"(?:.+/)?dense(_\d+)?/vars/0")


def keras_prefixes(tensors: Mapping[str, H5Tensor]) -> list[str]:
    """Returns the address prefixes of the ConvNeXts in a model."""
    return [key.removesuffix(stem) for stem in _STEMS for key in tensors if key.endswith(stem)]


def keras_trunk(
    tensors: Mapping[str, H5Tensor], prefix: str, expected: Variant | None
) -> tuple[str, Variant, dict[Place, Source], list[str]]:
    """Recognizes the layers of a network.

    Args:
        tensors: dict from names to tensors.
        prefix: str. Address prefix of the network's layers.
        expected: Variant or None. The network to assume where the file is ambiguous.

    Returns:
        The layout, the network, its tensors by their places, and the names of the other tensors.

    Raises:
        CheckpointError: If it is not a ConvNeXt, or a tensor is missing or has the wrong shape.
    """
    within = {key.removeprefix(prefix): t for key, t in tensors.items() if key.startswith(prefix)}
    around = {key: each for key, each in tensors.items() if not key.startswith(prefix)}
    if any(each.dtype.kind in "iub" and len(each.shape) == 2 for each in within.values()):
        raise CheckpointError(
            "The network is quantized, and the file does not contain the original weights. Load it "
            "with keras.models.load_model, or use a file saved before quantize was called"
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
                f"{key} has {len(form.axes)} axes in a ConvNeXt. Received: shape={state[key].shape}"
            )
        if place in sources:
            raise CheckpointError(f"{sources[place].key} and {key} name the same tensor")
        sources[place] = source
    if len(unknown) > len(sources):
        raise CheckpointError(
            f"Not a ConvNeXt in any supported layout. Its tensors include {listed(unknown)}"
        )
    if foreign := [key for key in unknown if _is_within(key)]:
        raise CheckpointError(
            f"The ConvNeXt in the file contains unknown tensors: {listed(foreign)}. Use a file of "
            "an unmodified network, or skip them with ignore="
        )
    if layout == "keras" and HEAD_KERNEL not in sources and (named_head := _head_by_name(unknown)):
        for place, key in named_head.items():
            if len(state[key].shape) == (2 if place == HEAD_KERNEL else 1):
                sources[place] = Source(key, state[key], tuple(range(len(state[key].shape))))
    elif unknown:  # with several dense layers, the first is not the head
        sources = {place: each for place, each in sources.items() if place.layer != "head"}
    trunk = {place: each for place, each in sources.items() if place.layer not in ABOVE}
    network = check_whole(
        {place: each.shape for place, each in trunk.items()},
        {place: each.key for place, each in trunk.items()},
    )
    has_norm = Place("norm", "gamma") in sources  # otherwise the dense layer is not our head
    hidden = sources[HIDDEN_KERNEL].shape[1] if HIDDEN_KERNEL in sources else None
    network = with_hidden(network, hidden)
    if HEAD_KERNEL in sources and not (
        has_norm and sources[HEAD_KERNEL].shape[0] == (hidden or network.dims[-1])
    ):
        sources = {place: each for place, each in sources.items() if place.layer != "head"}
    used = {id(source.tensor) for source in sources.values()}
    others = {**around, **{key: each for key, each in state.items() if key not in head}}
    return layout, network, sources, [k for k, each in others.items() if id(each) not in used]


def _is_within(key: str) -> bool:
    """Whether a tensor seems to belong to the network rather than to the layers around it."""
    if key.startswith(_OWN):
        return False
    return "/vars/" in key or _NAMES_WITHIN.search(key) is not None


def _head_by_name(unknown: Collection[str]) -> dict[Place, str]:
    """The only layer around a network in a legacy file, if it may be a `Dense`."""
    kernel = next((key for key in unknown if key.endswith(".0")), "")
    bias = f"{kernel[:-1]}1"
    is_alone = set(unknown) == {kernel, bias}
    return {HEAD_KERNEL: kernel, Place("head", "bias"): bias} if is_alone else {}


def _head_alone(around: Mapping[str, H5Tensor]) -> dict[str, H5Tensor]:
    """The only `Dense` around a nested network, under the address of the network's own head."""
    kernel = next(filter(_DENSE.fullmatch, around), "")
    bias = f"{kernel[:-1]}1"
    if set(around) != {kernel, bias}:
        return {}
    return {"layers/dense/vars/0": around[kernel], "layers/dense/vars/1": around[bias]}
