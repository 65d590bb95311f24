"""Limits on what Keras may build from the configuration in a `.keras` file.

A configuration of a few hundred bytes can ask for a layer of a trillion weights, or for a graph
that calls a model twice, which calls another twice, and so on. An honest file contains the weights
of its layers, and its configuration grows with the number of layer calls.
"""

import json
import math
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import keras

from keras_convnext.pretrained.errors import CheckpointError

# Variables that are not in the file, such as the states of random generators.
_FEW_ELEMENTS = 1 << 16
# Elements of one feature map, per image if the batch size is open: 67 megapixels of 4 channels.
_LARGEST_TENSOR = 1 << 28
# Symbolic tensors: a layer call makes a few. Some versions of Keras repeat a call that fails.
_MOST_TENSORS = 100_000
_FEW_CALLS, _BYTES_PER_CALL = 3000, 64  # the entry of a layer that is called once has 300 bytes
_MOST_PASSES = 100  # of Keras over the layers, one for each that is used before it is listed

# Arguments by which layers and operations repeat work, and the most that they may ask for.
_MOST_REPEATED = 1000
_REPEATED = {
    "AugMix": ("num_chains", "chain_depth"),
    "RandAugment": ("num_ops",),
    "SpectralNormalization": ("power_iterations",),
    "Split": ("indices_or_sections",),
    "Unstack": ("num",),
}

_replacing = threading.RLock()


def check_graph(config: Any) -> None:
    """Checks that building the layers takes time linear in the size of a configuration.

    Raises:
        CheckpointError: If it does not.
    """
    most = _FEW_CALLS
    if _calls(config) > most:
        most = max(most, len(json.dumps(config)) // _BYTES_PER_CALL)
    if _calls(config) > most:
        raise CheckpointError(
            f"The model calls its layers more than {most:,} times, far more than a configuration "
            "of this size needs"
        )
    for each in _dicts(config):
        layers = each.get("layers")
        if isinstance(layers, list) and "output_layers" in each:
            _check_order(layers, most)
        arguments = each.get("config")
        for name in _REPEATED.get(str(each.get("class_name"))[:100], ()):
            number = arguments.get(name) if isinstance(arguments, dict) else None
            if isinstance(number, int | float) and number > _MOST_REPEATED:
                raise CheckpointError(
                    f"The model uses {each['class_name']} with {name}={number}, more than the "
                    f"limit of {_MOST_REPEATED}"
                )


def _calls(config: Any) -> int:
    """The number of layer calls, including those within layers that are models."""
    if isinstance(config, list):
        return sum(map(_calls, config))
    if not isinstance(config, dict):
        return 0
    within = sum(
        _calls(value)
        for key, value in config.items()
        if key not in ("inbound_nodes", "compile_config")
    )
    nodes = config.get("inbound_nodes")
    if isinstance(nodes, list):
        return max(len(nodes), 1) * (1 + within)
    if config.get("class_name") == "Bidirectional":  # creates a second layer like the one it wraps
        return 2 * (1 + within)
    layers = config.get("layers")
    return within + (len(layers) if isinstance(layers, list) else 0)  # called by a Sequential


def _check_order(layers: list[dict[str, Any]], most: int) -> None:
    """Checks that the inputs of each layer exist when Keras calls it, as it does pass by pass.

    Some versions of Keras wait forever for an input that no layer makes.
    """
    made = {layer["name"]: int(layer["class_name"] == "InputLayer") for layer in layers}
    if len(made) < len(layers):
        raise CheckpointError("Two layers of the model have the same name")
    waiting = {
        layer["name"]: [list(_origins(node)) for node in layer["inbound_nodes"]][::-1]
        for layer in layers
    }
    if not all(all(nodes) for nodes in waiting.values()):
        # Keras would run the layer at once, and feature maps can be large.
        raise CheckpointError("The model calls a layer without an input tensor")
    passes = 0
    while waiting:
        before = sum(map(len, waiting.values()))
        for name, nodes in waiting.items():
            while nodes and all(made.get(origin, 0) > index for origin, index in nodes[-1]):
                nodes.pop()
                made[name] += 1
        waiting = {name: nodes for name, nodes in waiting.items() if nodes}
        passes += 1
        if waiting and sum(map(len, waiting.values())) == before:
            raise CheckpointError("The layers of the model wait for inputs that no layer makes")
        if passes * len(layers) > _MOST_PASSES * most:
            raise CheckpointError("The layers of the model are not in the order in which they run")


def _origins(node: Any) -> Iterator[tuple[str, int]]:
    """Yields the layer and the index of the call that made each input of a call."""
    if isinstance(node, list):  # as in files of tf.keras: (layer, node, tensor, arguments)
        yield from ((each[0], each[1]) for each in node)
        return
    for each in _dicts(node):
        if each.get("class_name") == "__keras_tensor__":
            origin, index, *_ = each["config"]["keras_history"]
            yield origin, index


def _dicts(config: Any) -> Iterator[dict[str, Any]]:
    waiting = [config]
    while waiting:
        each = waiting.pop()
        if isinstance(each, dict):
            yield each
            waiting += each.values()
        elif isinstance(each, list):
            waiting += each


class Limits:
    """What Keras may create while it loads a model.

    Args:
        elements: int. The most elements that all variables may have together.

    Attributes:
        refusal: str or None. Why something was refused; Keras may hide the error itself.
    """

    def __init__(self, elements: int) -> None:
        self._room = elements + _FEW_ELEMENTS
        self._elements = elements
        self._tensors = 0
        self.refusal: str | None = None

    @contextmanager
    def kept(self) -> Iterator[None]:
        """Refuses variables and tensors beyond the limits within the context, in this thread.

        They are refused before they are allocated, for which Keras has no hook.
        """
        # The lock keeps two threads from putting back each other's replacement.
        with (
            _replacing,
            _checked(keras.Variable, self._check_variable),
            _checked(keras.KerasTensor, self._check_tensor),
        ):
            yield

    def _check_variable(self, initializer: Any, shape: Any = None, *_: Any, **__: Any) -> None:
        if shape is None:
            shape = getattr(initializer, "shape", ())
        elements = _size(shape)
        self._room -= elements
        if self._room < 0:
            self._refuse(
                f"The layers have more weights than the file contains: one of shape "
                f"{tuple(shape)!s:.100}, in a file of {self._elements:,} bytes"
            )

    def _check_tensor(self, shape: Any, *_: Any, **__: Any) -> None:
        self._tensors += 1
        if self._tensors > _MOST_TENSORS:
            self._refuse(f"Building the model takes more than {_MOST_TENSORS:,} tensors")
        if _size(shape) > _LARGEST_TENSOR:
            self._refuse(
                f"A feature map has more than the limit of {_LARGEST_TENSOR:,} elements: "
                f"shape={tuple(shape)!s:.100}"
            )

    def _refuse(self, reason: str) -> None:
        self.refusal = reason
        raise CheckpointError(reason)


def _size(shape: Any) -> int:
    """The number of elements, not counting open sides."""
    sides = (shape,) if isinstance(shape, int | float) else shape
    return math.prod(int(side) for side in sides if side is not None)


@contextmanager
def _checked(kind: Any, check: Callable[..., None]) -> Iterator[None]:
    """Calls `check` with the arguments of each object of a class before it is created."""
    thread = threading.get_ident()
    is_own = "__init__" in vars(kind)
    create = kind.__init__

    def __init__(self: Any, *args: Any, **kwargs: Any) -> None:
        if threading.get_ident() == thread:
            check(*args, **kwargs)
        create(self, *args, **kwargs)

    kind.__init__ = __init__
    try:
        yield
    finally:
        if is_own:
            kind.__init__ = create
        else:
            del kind.__init__
