"""The graph of a Keras model at inference, as one flat list of layer calls.

Nested functional and `Sequential` models are flattened, at any depth. Layers are not copied.
"""

import inspect
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, TypeVar

import keras

from keras_convnext.printable import printable

T = TypeVar("T")

# Keras layers that return their input at inference, if input and output shapes are equal. So do
# those named `Random...`.
_IDLE = {
    "ActivityRegularization", "AlphaDropout", "AugMix", "CutMix", "Dropout", "GaussianDropout",
    "GaussianNoise", "Identity", "MixUp", "RandAugment", "SpatialDropout2D",
}  # fmt: skip


class Tensor:
    """An output of a step or an input of the graph. Tensors are compared by identity.

    Args:
        shape: tuple of int or None.
        dtype: str.
    """

    def __init__(self, shape: tuple[int | None, ...], dtype: str) -> None:
        self.shape, self.dtype = tuple(shape), dtype


class Step(NamedTuple):
    """One call of a layer.

    Args:
        layer: keras.layers.Layer, or an operation of `keras.ops`.
        inputs: tuple of Tensor.
        outputs: tuple of Tensor.
        arguments: callable. Takes a list with a value for each input, and returns the positional
            and the keyword arguments of the call.
        model: str. Name of the model that contains the layer.
    """

    layer: Any
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    arguments: Callable[[list[Any]], tuple[tuple[Any, ...], dict[str, Any]]]
    model: str


class Graph(NamedTuple):
    """The calls of a model's layers.

    Args:
        name: str. Name of the model.
        inputs: tuple of Tensor.
        outputs: tuple of Tensor.
        steps: tuple of Step. In topological order.
    """

    name: str
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    steps: tuple[Step, ...]

    def run(
        self,
        values: Mapping[Tensor, T],
        call: Callable[..., Any],
        steps: tuple[Step, ...] | None = None,
    ) -> dict[Tensor, T]:
        """Executes the steps.

        Args:
            values: mapping from tensors to their initial values.
            call: callable. Takes a layer and the positional and keyword arguments of its call, and
                returns the values of its outputs.
            steps: tuple of Step or None. The steps to execute. Defaults to None: all.

        Returns:
            dict from tensors to values: `values` and the outputs of the steps.
        """
        found = dict(values)
        for step in self.steps if steps is None else steps:
            args, kwargs = step.arguments([found[tensor] for tensor in step.inputs])
            outputs = keras.tree.flatten(call(step.layer, *args, **kwargs))
            found |= zip(step.outputs, outputs)
        return found

    def made_by(self, tensor: Tensor) -> Step | None:
        """Returns the step with this output, or None."""
        return next((step for step in self.steps if tensor in step.outputs), None)

    def taken_by(self, tensor: Tensor) -> list[Step]:
        """Returns the steps with this input."""
        return [step for step in self.steps if tensor in step.inputs]

    def of_layer(self, layer: keras.layers.Layer) -> list[Step]:
        """Returns the calls of a layer."""
        return [step for step in self.steps if step.layer is layer]

    def after(self, tensor: Tensor) -> tuple[Step, ...]:
        """Returns the steps that depend on a tensor, in order."""
        depending, found = {tensor}, []
        for step in self.steps:
            if depending.intersection(step.inputs):
                depending.update(step.outputs)
                found.append(step)
        return tuple(found)


def graph_of(model: keras.Model) -> Graph:
    """Returns the graph of a model and its nested models, as executed at inference.

    Layers that return their input at inference, such as dropout and augmentation, are omitted, and
    so are heads that are only trained.

    Args:
        model: keras.Model. Functional or `Sequential`, built.

    Raises:
        ValueError: If the model has no graph, because it is not built or has a custom `call`.
    """
    functional = as_functional(model)
    if functional is None:
        raise ValueError(
            f"{printable(model.name)} has no graph: {type(model).__name__} is not built, or has a "
            "custom call. Build it as a functional or Sequential model with a keras.Input, or pass "
            f"the model inside it. Received: model={printable(model.name)}"
        )
    steps: list[Step] = []
    inputs = tuple(Tensor(x.shape, x.dtype) for x in functional.inputs)
    outputs = _enter(functional, model.name, list(inputs), steps)
    return Graph(model.name, inputs, tuple(outputs), tuple(_needed(steps, outputs)))


def _needed(steps: list[Step], outputs: list[Tensor]) -> list[Step]:
    """Returns the steps that lead to the outputs: not those of heads that are only trained."""
    needed, found = set(outputs), []
    for step in reversed(steps):
        if needed.intersection(step.outputs):
            needed.update(step.inputs)
            found.append(step)
    return found[::-1]


def logits_of(graph: Graph) -> Graph:
    """Returns the graph of a classifier or a segmenter without its last activation.

    Args:
        graph: Graph. With one output, of shape (N, classes) or (N, H, W, classes).

    Returns:
        Graph with the logits as its output, of the same shape.

    Raises:
        ValueError: If the graph has several outputs or another output shape, or if the activation
            belongs to a quantized layer.
    """
    if len(graph.outputs) != 1:
        names = ", ".join(sorted({made.layer.name for x in graph.outputs
                                  if (made := graph.made_by(x)) is not None}))  # fmt: skip
        raise ValueError(
            "A classifier must have one output: select one with "
            "keras.Model(model.input, model.get_layer(name).output). "
            f"Received: {printable(graph.name)} with {len(graph.outputs)} outputs, of the layers "
            f"{printable(names)}"
        )
    (output,) = graph.outputs
    if len(output.shape) not in (2, 4):
        raise ValueError(
            "A classifier must return (N, classes), and a segmenter (N, H, W, classes). "
            f"Received: {printable(graph.name)} with an output of shape {output.shape}"
        )
    last = graph.made_by(output)
    if last is None:
        return graph
    if isinstance(last.layer, (keras.layers.Activation, keras.layers.Softmax)):
        return graph._replace(outputs=last.inputs)
    if type(last.layer) is not keras.layers.Dense or (
        last.layer.activation is keras.activations.linear
    ):
        return graph
    if last.layer.quantization_mode:
        raise ValueError(
            "The logits of a quantized layer with an activation are not available: move the "
            "activation to a separate layer, or use the model before quantization. "
            f"Received: {printable(graph.name)} with quantized layer {printable(last.layer.name)}"
        )
    logits = Tensor(output.shape, output.dtype)
    linear, activation = _apart(last.layer)
    steps = (
        *(step for step in graph.steps if step is not last),
        last._replace(layer=linear, outputs=(logits,)),
        last._replace(layer=activation, inputs=(logits,), arguments=_positional),
    )
    return graph._replace(outputs=(logits,), steps=steps)


def _apart(dense: keras.layers.Dense) -> tuple[keras.layers.Dense, keras.layers.Activation]:
    """Splits a layer into copies of its linear part and of its activation."""
    linear = keras.layers.Dense(
        dense.units, use_bias=dense.use_bias, dtype=dense.dtype_policy, name=dense.name
    )
    linear.build((None, dense.kernel.shape[0]))
    weights = [dense.kernel] if dense.bias is None else [dense.kernel, dense.bias]
    linear.set_weights([keras.ops.convert_to_numpy(weight) for weight in weights])
    activation = keras.layers.Activation(
        dense.activation, dtype=dense.dtype_policy, name=f"{dense.name}_activation"
    )
    return linear, activation


def _positional(values: list[Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    return tuple(values), {}


def call_at_inference(layer: Any, *args: Any, **kwargs: Any) -> Any:
    """Calls a layer or an operation with `training=False`, for `Graph.run`."""
    is_layer = isinstance(layer, keras.layers.Layer)
    if is_layer and "training" in inspect.signature(layer.call).parameters:
        kwargs = {**kwargs, "training": False}
    return layer(*args, **kwargs)


def as_functional(layer: Any) -> Any:
    """Returns the functional model of a layer: itself, that of a `Sequential`, or None."""
    if not isinstance(layer, keras.Model) or type(layer).call.__module__[:6] != "keras.":
        return None
    functional = getattr(layer, "_functional", None) or layer
    return functional if hasattr(functional, "_nodes_by_depth") else None


def nodes_of(functional: Any) -> list[Any]:
    """Returns Keras' nodes of a functional model, in topological order, without the inputs."""
    of_depth = functional._nodes_by_depth
    nodes = [node for depth in sorted(of_depth, reverse=True) for node in of_depth[depth]]
    return [node for node in nodes if not node.is_input]


def _enter(functional: Any, name: str, inputs: list[Tensor], steps: list[Step]) -> list[Tensor]:
    """Adds the steps of a model called with `inputs`, and returns its outputs."""
    known = {
        id(x): _cast(tensor, x.dtype, name, steps) for x, tensor in zip(functional.inputs, inputs)
    }
    for node in nodes_of(functional):
        taken = [known[id(x)] for x in node.input_tensors]
        inner = as_functional(node.operation)
        if getattr(node.operation, "is_only_trained", False):
            given = taken[:1]
        elif inner is not None:
            given = _enter(inner, node.operation.name, taken, steps)
        elif _is_idle(node.operation) and [x.shape for x in taken] == [
            tuple(x.shape) for x in node.outputs
        ]:
            pairs = zip(taken, node.outputs)
            given = [_cast(x, output.dtype, node.operation.name, steps) for x, output in pairs]
        else:
            given = [Tensor(x.shape, x.dtype) for x in node.outputs]
            steps.append(
                Step(node.operation, tuple(taken), tuple(given), _arguments_of(node), name)
            )
        known |= {id(x): tensor for x, tensor in zip(node.outputs, given)}
    return [known[id(x)] for x in functional.outputs]


def _arguments_of(node: Any) -> Callable[[list[Any]], tuple[tuple[Any, ...], dict[str, Any]]]:
    """Returns a function from input values to the arguments of a call.

    Arguments that are None are omitted, and so is `training`.
    """

    def fill(values: list[Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        places = {id(x): value for x, value in zip(node.input_tensors, values)}
        args, kwargs = node.arguments.fill_in(places)
        given = {name: value for name, value in kwargs.items() if value is not None}
        given.pop("training", None)
        return args, given

    return fill


def _is_idle(layer: Any) -> bool:
    """Whether a layer returns its input at inference if the shapes are equal."""
    of_keras = type(layer).__module__.startswith("keras.")
    name = type(layer).__name__
    return of_keras and (name in _IDLE or name.startswith("Random"))


def _cast(tensor: Tensor, dtype: str, name: str, steps: list[Step]) -> Tensor:
    """Adds a cast of integers to floats, as models do with their inputs."""
    if tensor.dtype == dtype or "float" in tensor.dtype or "float" not in dtype:
        return tensor
    made = Tensor(tensor.shape, dtype)
    layer = keras.layers.Rescaling(1.0, dtype=dtype, name=f"{name}_cast")
    steps.append(Step(layer, (tensor,), (made,), _positional, name))
    return made
