"""Finds the ConvNeXts among the tensors of a file, whatever their prefix.

A trunk is recognized by its blocks: a prefix under which some layout's name of a depthwise kernel
exists. Below the final norm matching is strict: every tensor must have its place and shape, or the
file is refused. The final norm and the head are used if they fit, and ignored otherwise.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np

from keras_convnext.pretrained.errors import CheckpointError
from keras_convnext.pretrained.layouts import (
    ABOVE,
    HEAD_KERNEL,
    HIDDEN_KERNEL,
    KINDS,
    LAYOUTS,
    NORMS_OF_MAPS,
    STEM_KERNEL,
    TRUNK_MODULES,
    Place,
)
from keras_convnext.pretrained.names import (
    MAX_KEY,
    Form,
    first_part,
    name_in_trunk,
    reading_of,
    trunks_of,
    unwrapped,
)
from keras_convnext.pretrained.networks import (
    network_of,
    parameters_of,
    trunk_shapes,
    with_hidden,
)
from keras_convnext.pretrained.relatives import RMS_NORM, VARIATIONS, explained, relative_of
from keras_convnext.pretrained.source import Source, Tensor, source_of
from keras_convnext.variants import Variant


@dataclass
class Group:
    """The tensors under one prefix whose names belong to one layout."""

    sources: dict[Place, Source] = field(default_factory=dict)
    copies: list[tuple[Place, Source]] = field(default_factory=list)  # under a second name
    misfits: list[tuple[Form, Tensor]] = field(default_factory=list)  # wrong number of axes

    def add(self, key: str, name: str, layout: str, tensor: Tensor) -> None:
        """Adds a tensor if the layout has its name."""
        reading = reading_of(name, layout)
        if reading is None:
            return
        place, row = reading
        _, axes, ones = KINDS[row.kind][place.variable]
        form = Form(key, row.kind, axes, ones)
        source = source_of(form, tensor)
        if source is None:
            if place.layer not in ABOVE:
                self.misfits.append((form, tensor))
        elif place in self.sources:
            self.copies.append((place, source))
        else:
            self.sources[place] = source

    def __len__(self) -> int:
        return len(self.sources) + len(self.misfits)


@dataclass(frozen=True)
class Candidate:
    """A possible trunk.

    Args:
        prefix: str. Prefix of its tensor names, such as "backbone.".
        layout: str. Layout of its tensor names.
        group: Group. Its tensors, possibly including its final norm and head.
        above: Group. Its possible final norm and head in the enclosing module.
    """

    prefix: str
    layout: str
    group: Group
    above: Group

    @property
    def shapes(self) -> dict[Place, tuple[int, ...]]:
        """The shapes below the final norm."""
        sources = self.group.sources
        return {
            place: source.shape for place, source in sources.items() if place.layer not in ABOVE
        }

    @property
    def is_whole(self) -> bool:
        """Whether it has a stem; otherwise it is part of something else."""
        return STEM_KERNEL in self.group.sources

    def others_under(self, prefix: str, keys: Iterable[str]) -> dict[str, str]:
        """Returns unknown tensors under a prefix, as a dict from keys to names without it."""
        known = {form.key for form, _ in self.group.misfits}
        for group in (self.group, self.above):
            known |= {source.key for source in group.sources.values()}
            known |= {source.key for _, source in group.copies}
        names = {key: unwrapped(key) for key in keys if key not in known}
        return {
            key: name.removeprefix(prefix) for key, name in names.items() if name.startswith(prefix)
        }

    def same_tensors(self, other: "Candidate") -> bool:
        """Whether another candidate has the same tensors under other names."""
        mine, theirs = self.group.sources, other.group.sources
        return mine.keys() == theirs.keys() and all(
            mine[place].tensor == theirs[place].tensor for place in mine
        )

    def __str__(self) -> str:
        network = network_of(self.shapes)
        name = network.name if network else "an incomplete ConvNeXt"
        return f"{name} with {parameters_of(self.shapes):,} parameters"


def candidates_in(tensors: Mapping[str, Tensor]) -> list[Candidate]:
    """Finds the trunks in a dict of tensors, in time linear in the length of the names."""
    # By prefix and layout: the tensors of a trunk, and those that may belong to it from outside.
    trunks: dict[str, dict[str, Group]] = {}
    for key, tensor in tensors.items():
        if _may_be_depthwise(key, tensor.shape):
            for prefix, layout in trunks_of(key):
                trunks.setdefault(prefix, {})[layout] = Group()
    around = {_around(prefix): {layout: Group() for layout in layouts if layout in TRUNK_MODULES}
              for prefix, layouts in trunks.items()}  # fmt: skip
    for key, tensor in tensors.items():
        name = unwrapped(key[: MAX_KEY + 1])
        for start in _starts(name) if len(key) <= MAX_KEY else ():
            for groups in (trunks, around):
                for layout, group in groups.get(name[:start], {}).items():
                    group.add(key, name[start:], layout, tensor)
    found = []
    for prefix, by_layout in trunks.items():
        layout = max(by_layout, key=lambda name: len(by_layout[name]))
        beside = around[_around(prefix)].get(layout, Group())
        found.append(Candidate(prefix, layout, by_layout[layout], beside))
    return found


def _may_be_depthwise(key: str, shape: tuple[int, ...]) -> bool:
    """Whether a kernel may be depthwise: (C, 1, H, W), or (H*W, C) with sparse convolutions."""
    if len(shape) == 2:
        return key.endswith(".kernel")
    return len(shape) == 4 and shape[1] == 1 < shape[0]


def _starts(name: str) -> Iterator[int]:
    """Yields the index at which each part of a name begins."""
    start = 0
    while start >= 0:
        yield start
        dot = name.find(".", start)
        start = dot + 1 if dot >= 0 else -1


def _around(prefix: str) -> str:
    """The prefix of the parent module."""
    return prefix[: prefix[:-1].rfind(".") + 1]


def checked(candidate: Candidate, keys: Collection[str]) -> tuple[Variant, dict[Place, Source]]:
    """Checks a trunk, and adds its final norm and head if they fit.

    Args:
        candidate: Candidate. The trunk.
        keys: collection of str. The names of all tensors in its dict.

    Returns:
        The network, and its tensors by their places.

    Raises:
        CheckpointError: If it is a related network, or if a tensor is missing or has the wrong
            shape.
    """
    trunk = {place: each for place, each in candidate.group.sources.items()
             if place.layer not in ABOVE}  # fmt: skip
    modules = {
        first_part(name_in_trunk(row, candidate.layout))
        for row in LAYOUTS[candidate.layout]
        if row.ours not in ABOVE
    }
    others = candidate.others_under(candidate.prefix, keys)
    foreign = [key for key, name in others.items() if first_part(name) in modules]
    if relative := relative_of(foreign, VARIATIONS):
        raise CheckpointError(explained(relative))
    if {place.variable for place in trunk if place.layer.endswith("/norm")} == {"gamma"}:
        raise CheckpointError(explained(RMS_NORM))
    if foreign:
        raise CheckpointError(
            f"The ConvNeXt in the file contains unknown tensors: {listed(foreign)}. Use a file of "
            "an unmodified network, or skip them with ignore="
        )
    network = _checked_trunk(candidate, trunk)
    sources = trunk | _above(candidate, network, keys)
    for source in sources.values():
        if source.tensor.dtype.kind not in "fV":  # bfloat16 and float8 are of kind V
            raise CheckpointError(
                "Weights must be floating-point. Use weights saved before quantization. "
                f"Received: {source.key} of dtype {source.tensor.dtype}"
            )
    hidden = sources[HIDDEN_KERNEL].shape[1] if HIDDEN_KERNEL in sources else None
    return with_hidden(network, hidden), sources


def _checked_trunk(candidate: Candidate, trunk: Mapping[Place, Source]) -> Variant:
    """Returns the network of a trunk after checking that it is complete."""
    for form, tensor in candidate.group.misfits:
        raise CheckpointError(
            f"{form.key} has {len(form.axes)} axes in a ConvNeXt. Received: shape={tensor.shape}"
        )
    for place, copy in candidate.group.copies:
        if place in trunk:
            raise CheckpointError(f"{trunk[place].key} and {copy.key} name the same tensor")
    found = {place: source.shape for place, source in trunk.items()}
    return check_whole(found, {place: source.key for place, source in trunk.items()})


def check_whole(found: Mapping[Place, tuple[int, ...]], names: Mapping[Place, str]) -> Variant:
    """Returns the network whose weights below the final norm have these shapes.

    Args:
        found: dict from places to shapes.
        names: dict from places to names in the file.

    Raises:
        CheckpointError: If a tensor is missing or has the wrong shape.
    """
    network = network_of(found)
    # A file with few names may claim thousands of blocks; no memory is spent on these.
    if network is None or sum(network.depths) > len(found):
        raise CheckpointError("Whole parts of a ConvNeXt are missing from the checkpoint")
    if network.kernel_size % 2 == 0:
        raise CheckpointError(
            "The depthwise kernels of a ConvNeXt must have an odd size. "
            f"Received: kernels of {network.kernel_size} x {network.kernel_size}"
        )
    if network.grn and network.layer_scale is not None:
        raise CheckpointError(
            "The blocks have both layer scale (gamma) and global response normalization (GRN). A "
            "ConvNeXt has the former, and a ConvNeXt V2 the latter"
        )
    expected = trunk_shapes(network, found[STEM_KERNEL][2])
    if missing := ["/".join(place) for place in expected if place not in found]:
        raise CheckpointError(
            f"Tensors of {network.name} are missing from the checkpoint: {listed(missing)}"
        )
    for place, shape in found.items():
        if shape != expected[place]:
            raise CheckpointError(
                f"{'/'.join(place)} has the shape {expected[place]} in a {network.name} of depths "
                f"{network.depths!s:.60} and dims {network.dims!s:.60}. Received: {names[place]} "
                f"of shape {shape}"
            )
    return network


def _above(candidate: Candidate, network: Variant, keys: Collection[str]) -> dict[Place, Source]:
    """Returns the final norm and the head if they belong to the network."""
    layout, width = candidate.layout, network.dims[-1]
    found = candidate.above.sources | candidate.group.sources
    norm = {place: each for place, each in found.items() if place.layer == "norm"}
    hidden = {place: each for place, each in found.items() if place.layer == "pre_logits"}
    head = {place: each for place, each in found.items() if place.layer == "head"}
    if f"{candidate.prefix}{NORMS_OF_MAPS.get(layout)}" in map(unwrapped, keys):
        norm = {}
    if len(norm) == 1:
        (source,) = norm.values()
        module = source.key.rpartition(".")[0]
        if not {f"{module}.weight", f"{module}.bias"} <= set(keys):
            raise CheckpointError(
                f"A tensor of the final norm is missing: only {source.key} exists"
            )
    if len(norm) < 2 or any(source.shape != (width,) for source in norm.values()):
        return {}  # the head is useless without the norm it was trained with
    if hidden:
        units = hidden[HIDDEN_KERNEL].shape[1] if HIDDEN_KERNEL in hidden else 0
        if {source.shape for source in hidden.values()} != {(width, units), (units,)}:
            return norm
        width = units
    if {source.shape for source in head.values()} != {(width, n := _classes(head)), (n,)}:
        return norm
    # A head of several layers may begin or end with a layer of the same name.
    modules = {
        first_part(name_in_trunk(row, layout)) for row in LAYOUTS[layout] if row.ours == "head"
    }
    beside = [candidate.prefix, *([_around(candidate.prefix)] if layout in TRUNK_MODULES else [])]
    names = (name for each in beside for name in candidate.others_under(each, keys).values())
    if any(first_part(name) in modules for name in names):
        return norm
    return norm | hidden | head


def _classes(head: Mapping[Place, Source]) -> int:
    return head[HEAD_KERNEL].shape[1] if HEAD_KERNEL in head else 0


def equal_copies(candidate: Candidate, sources: Mapping[Place, Source]) -> Iterator[str]:
    """Yields the second names of tensors stored twice, such as DINOv3's final norm, if equal."""
    for place, copy in candidate.group.copies:
        source = sources.get(place)
        if (
            source
            and source.shape == copy.shape
            and (source.tensor == copy.tensor or np.array_equal(source.read(), copy.read()))
        ):
            yield copy.key


def listed(names: Iterable[object]) -> str:
    """Lists the first names for a message."""
    shown = [str(name)[:100].encode("unicode_escape").decode() for name in names]
    more = f" and {len(shown) - 5} more" if len(shown) > 5 else ""
    return ", ".join(shown[:5]) + more if shown else "nothing"
