"""What a Keras model computes at inference: the calls of its layers, as one flat list.

A functional model or a `Sequential` may stand in another one, at any depth; here their layers
follow each other. Nothing is copied, and nothing is added to the layers that are called.
"""

import inspect
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, TypeVar

import keras

T = TypeVar("T")

# Keras' layers that give back their input at inference if that has the shape of their output. So
# do those named `Random...`.
_IDLE = {
    "ActivityRegularization", "AlphaDropout", "AugMix", "CutMix", "Dropout", "GaussianDropout",
    "GaussianNoise", "Identity", "MixUp", "RandAugment", "SpatialDropout2D",
}  # fmt: skip


class Tensor:
    """What one step gives and others take. Two are the same if they are the same object.

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
        arguments: function of a value for each input. Returns the positional and the keyword
            arguments of the call.
        model: str. The name of the model that the layer is in.
    """

    layer: Any
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    arguments: Callable[[list[Any]], tuple[tuple[Any, ...], dict[str, Any]]]
    model: str


class Graph(NamedTuple):
    """What a model computes.

    Args:
        name: str. Of the model.
        inputs: tuple of Tensor.
        outputs: tuple of Tensor.
        steps: tuple of Step. Each comes after those whose outputs it takes.
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
        """Goes through the steps.

        Args:
            values: mapping from tensors to what stands for them, at first.
            call: function of a layer, of the positional and of the keyword arguments it is called
                with. Returns what stands for its outputs.
            steps: tuple of Step or None. Which of them to go through. Defaults to None: all.

        Returns:
            dict from tensors to what stands for them: `values`, and the outputs of the steps.
        """
        found = dict(values)
        for step in self.steps if steps is None else steps:
            args, kwargs = step.arguments([found[tensor] for tensor in step.inputs])
            outputs = keras.tree.flatten(call(step.layer, *args, **kwargs))
            found |= zip(step.outputs, outputs)
        return found

    def made_by(self, tensor: Tensor) -> Step | None:
        """Returns the step that gives a tensor, if one does."""
        return next((step for step in self.steps if tensor in step.outputs), None)

    def taken_by(self, tensor: Tensor) -> list[Step]:
        """Returns the steps that take a tensor."""
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
    """Lists the calls of the layers of a model, and of the models in it, as they are at inference.

    Layers that give back their input at inference, such as dropout and augmentation, are left out.

    Args:
        model: keras.Model. Functional or `Sequential`, built.

    Raises:
        ValueError: If the model has no graph: one that is not built, or of a class with a `call`
            of its own.
    """
    functional = as_functional(model)
    if functional is None:
        raise ValueError(
            f"The layers of {model.name} are called by Python code, the call of "
            f"{type(model).__name__}, or not called yet, and cannot be followed. Build it as a "
            "functional or Sequential model with a keras.Input, or pass the model within it. "
            f"Received: model={model.name}"
        )
    steps: list[Step] = []
    inputs = tuple(Tensor(x.shape, x.dtype) for x in functional.inputs)
    outputs = _enter(functional, model.name, list(inputs), steps)
    return Graph(model.name, inputs, tuple(outputs), tuple(steps))


def logits_of(graph: Graph) -> Graph:
    """Returns what a classifier computes before its last activation, which makes probabilities.

    Args:
        graph: Graph. With one output, of shape (N, classes).

    Returns:
        Graph with one output, of that shape.

    Raises:
        ValueError: If there are more outputs, or of other shapes, or if the activation is that of a
            quantized layer.
    """
    if len(graph.outputs) != 1:
        names = ", ".join(sorted({made.layer.name for x in graph.outputs
                                  if (made := graph.made_by(x)) is not None}))  # fmt: skip
        raise ValueError(
            "A classifier has one output: choose one of them by "
            "keras.Model(model.input, model.get_layer(name).output). "
            f"Received: {graph.name} with {len(graph.outputs)}, of the layers {names}"
        )
    (output,) = graph.outputs
    if len(output.shape) != 2:
        raise ValueError(
            f"A classifier gives an array (N, classes). Received: {graph.name}, which gives "
            f"one of shape {output.shape}"
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
            "The logits of a quantized layer with an activation cannot be told: give the "
            "activation a layer of its own, or take the model before it was quantized. "
            f"Received: {graph.name} with quantized {last.layer.name}"
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
    """Copies of a layer, which gives logits, and of its activation."""
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
    """Calls a layer, or an operation, as `Graph.run` asks, not in training."""
    is_layer = isinstance(layer, keras.layers.Layer)
    if is_layer and "training" in inspect.signature(layer.call).parameters:
        kwargs = {**kwargs, "training": False}
    return layer(*args, **kwargs)


def as_functional(layer: Any) -> Any:
    """Returns a layer as the functional model that it is or has, or None."""
    if not isinstance(layer, keras.Model) or type(layer).call.__module__[:6] != "keras.":
        return None
    functional = getattr(layer, "_functional", None) or layer
    return functional if hasattr(functional, "_nodes_by_depth") else None


def nodes_of(functional: Any) -> list[Any]:
    """Returns Keras' records of the calls in a functional model, in order."""
    of_depth = functional._nodes_by_depth
    nodes = [node for depth in sorted(of_depth, reverse=True) for node in of_depth[depth]]
    return [node for node in nodes if not node.is_input]


def _enter(functional: Any, name: str, inputs: list[Tensor], steps: list[Step]) -> list[Tensor]:
    """Adds the steps of a model that is called with `inputs`, and returns its outputs."""
    known = {
        id(x): _cast(tensor, x.dtype, name, steps) for x, tensor in zip(functional.inputs, inputs)
    }
    for node in nodes_of(functional):
        taken = [known[id(x)] for x in node.input_tensors]
        inner = as_functional(node.operation)
        if inner is not None:
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
    """The arguments of a call as a function of its tensors, without those that say nothing.

    Whether it is training is left out as well.
    """

    def fill(values: list[Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        places = {id(x): value for x, value in zip(node.input_tensors, values)}
        args, kwargs = node.arguments.fill_in(places)
        told = {name: value for name, value in kwargs.items() if value is not None}
        told.pop("training", None)
        return args, told

    return fill


def _is_idle(layer: Any) -> bool:
    """Whether a layer gives back an input of the shape of its output at inference."""
    of_keras = type(layer).__module__.startswith("keras.")
    name = type(layer).__name__
    return of_keras and (name in _IDLE or name.startswith("Random"))


def _cast(tensor: Tensor, dtype: str, name: str, steps: list[Step]) -> Tensor:
    """Adds what makes floats of integers, as a model does with its inputs. Layers do the rest."""
    if tensor.dtype == dtype or "float" in tensor.dtype or "float" not in dtype:
        return tensor
    made = Tensor(tensor.shape, dtype)
    layer = keras.layers.Rescaling(1.0, dtype=dtype, name=f"{name}_cast")
    steps.append(Step(layer, (tensor,), (made,), _positional, name))
    return made
