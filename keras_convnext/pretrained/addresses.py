"""Where Keras 3 has a layer in a `.weights.h5`: by its class, and its number in that class.

The numbers run over the whole network, `layers/block_5`, so which stage a layer is of
depends on the depths. To read a file, they are found from the widths, and the network's layers are
numbered as they were when it was written. Keras puts a layer's name beside it, too, but in a heap
that HDF5 may read for ever if it is damaged.
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from itertools import count, groupby, takewhile
from typing import Protocol, TypeVar

from keras_convnext.pretrained.errors import CheckpointError
from keras_convnext.pretrained.layouts import LAYOUTS, Place
from keras_convnext.pretrained.names import form_of
from keras_convnext.variants import Variant


class HasShape(Protocol):
    """A tensor, as far as it is looked at here."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Its sides."""
        ...


Tensor = TypeVar("Tensor", bound=HasShape)

_NAME = "convnext"  # of the network, whatever it was
_PARTS = ("dwconv", "norm", "pwconv1", "grn", "pwconv2")  # of a block

# layout: the convolutions before the stages, and those of the blocks
_CONVOLUTIONS = {
    "keras": ("layers/patch_conv2d{}", "layers/block{}/dwconv"),
    "keras_applications": ("layers/sequential{}/layers/conv2d", "layers/conv2d{}"),
}


class Addresses:
    """Gives the layers of a network their addresses, asked for in the network's order."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, ...], str] = {}
        self._used: Counter[str] = Counter()

    def of(self, module: str, kind: str) -> str:
        """Returns the address of a layer.

        Args:
            module: str. The name of the layer, after that of the Sequential it is in and a slash;
                behind a dot an attribute of the layer.
            kind: str. The class of the layer.
        """
        address = ""
        path, dot, attribute = module.partition(".")
        layers = tuple(path.split("/"))
        for depth in range(1, len(layers) + 1):
            if layers[:depth] not in self._known:
                unnumbered = f"{address}layers/{kind if depth == len(layers) else 'sequential'}"
                self._known[layers[:depth]] = _numbered(unnumbered + "{}", self._used[unnumbered])
                self._used[unnumbered] += 1
            address = f"{self._known[layers[:depth]]}/"
        return f"{address[:-1]}{dot and '/'}{attribute}"


def named(tensors: Mapping[str, Tensor], expected: Variant | None = None) -> dict[str, Tensor]:
    """Puts the names of layers for the addresses of Keras 3, as far as they are of a ConvNeXt.

    Args:
        tensors: dict from keys to tensors.
        expected: Variant or None. What to take the network for where the file leaves it open: with
            stages of one width, or with one stage. Defaults to None.

    Raises:
        CheckpointError: If the file leaves open which network it is of.
    """
    layout = next((name for name, (of_stages, _) in _CONVOLUTIONS.items()
                   if _biases(tensors, of_stages)), None)  # fmt: skip
    if layout is None:
        return dict(tensors)
    stages, blocks = (_biases(tensors, pattern) for pattern in _CONVOLUTIONS[layout])
    depths = tuple(len(list(run)) for _, run in groupby(bias.shape for bias in blocks))
    norms = len(_biases(tensors, "layers/layer_normalization{}"))
    isotropic = layout == "keras" and len(stages) == 1 and norms < 2
    is_open = len(stages) == 1 or len(depths) != len(stages)
    if expected is not None and is_open and _sizes(expected) == (len(stages), len(blocks)):
        depths, isotropic = expected.depths, expected.isotropic
    if len(depths) != len(stages):
        raise CheckpointError(
            f"The widths of the {len(blocks)} blocks do not tell which is of which of the "
            f"{len(stages)} stages. Either one is missing, or stages have the same width: then "
            "make the model with its builder, and fill it with load_checkpoint"
        )
    names = {f"layers/normalization/vars/{place}": f"{_NAME}_prestem_normalization.{place}"
             for place in range(3) if layout == "keras_applications"}  # fmt: skip
    addresses = Addresses()
    for layer in layers_of(Variant("", depths, (), isotropic=isotropic)):
        for variable in ("kernel", "bias", "gamma", "beta", "kernel_2", "bias_2"):
            form = form_of(Place(layer, variable), LAYOUTS[layout], _NAME)
            if form:
                module, _, place = form.key.rpartition(".")
                address = addresses.of(module, form.kind.split()[0])
                names[f"{address}/vars/{place}"] = form.key
    return {names.get(key, key): tensor for key, tensor in tensors.items()}


def _sizes(network: Variant) -> tuple[int, int]:
    return len(network.depths), sum(network.depths)


def _numbered(pattern: str, number: int) -> str:
    return pattern.format(f"_{number}" if number else "")


def _biases(tensors: Mapping[str, Tensor], pattern: str) -> list[Tensor]:
    """The second variables of the layers of a class."""
    keys = (f"{_numbered(pattern, number)}/vars/1" for number in count())
    return [tensors[key] for key in takewhile(tensors.__contains__, keys)]


def layers_of(network: Variant) -> Iterator[str]:
    """Names the layers that have weights, or may have, in the order of the network."""
    yield from ("stem_conv",) if network.isotropic else ("stem_conv", "stem_norm")
    for stage, depth in enumerate(network.depths):
        if stage > 0:
            yield from (f"downsample_{stage}_norm", f"downsample_{stage}_conv")
        for block in range(depth):
            name = f"blocks_{block}" if network.isotropic else f"stages_{stage}_blocks_{block}"
            yield from (f"{name}/{part}" for part in _PARTS)
            yield name
    yield from ("norm", "pre_logits", "head")
