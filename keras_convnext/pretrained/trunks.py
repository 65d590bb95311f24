"""Finds the ConvNeXts among the tensors of a file, whatever precedes their names.

A trunk is told by its blocks: a prefix under which there is a depthwise kernel where a layout has
one. Below the last norm it is strict: each tensor has its place and its shape, or the file is
refused. The last norm and the head count if they fit, and are otherwise among the other tensors.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np

from keras_convnext.pretrained.errors import CheckpointError
from keras_convnext.pretrained.layouts import (
    ABOVE,
    HEAD_KERNEL,
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
from keras_convnext.pretrained.networks import network_of, parameters_of, trunk_shapes
from keras_convnext.pretrained.relatives import RMS_NORM, VARIATIONS, relative_of, told
from keras_convnext.pretrained.source import Source, Tensor, source_of
from keras_convnext.variants import Variant


@dataclass
class Group:
    """The tensors that one layout has names for under one prefix."""

    sources: dict[Place, Source] = field(default_factory=dict)
    copies: list[tuple[Place, Source]] = field(default_factory=list)  # under a second name
    misfits: list[tuple[Form, Tensor]] = field(default_factory=list)  # of other axes

    def add(self, key: str, name: str, layout: str, tensor: Tensor) -> None:
        """Adds a tensor, if the layout has its name and it may be what that says."""
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
    """A trunk that was found.

    Args:
        prefix: str. What precedes its names, such as "backbone.".
        layout: str. The layout of its names.
        group: Group. Its tensors, and possibly its last norm and its head.
        above: Group. What may be its last norm and its head beside it.
    """

    prefix: str
    layout: str
    group: Group
    above: Group

    @property
    def shapes(self) -> dict[Place, tuple[int, ...]]:
        """The shapes below the last norm."""
        sources = self.group.sources
        return {
            place: source.shape for place, source in sources.items() if place.layer not in ABOVE
        }

    @property
    def is_whole(self) -> bool:
        """Whether it has a stem, without which it is a part of something else."""
        return STEM_KERNEL in self.group.sources

    def others_under(self, prefix: str, keys: Iterable[str]) -> dict[str, str]:
        """The tensors that it has no place for under a prefix, and what follows the prefix."""
        known = {form.key for form, _ in self.group.misfits}
        for group in (self.group, self.above):
            known |= {source.key for source in group.sources.values()}
            known |= {source.key for _, source in group.copies}
        names = {key: unwrapped(key) for key in keys if key not in known}
        return {
            key: name.removeprefix(prefix) for key, name in names.items() if name.startswith(prefix)
        }

    def same_tensors(self, other: "Candidate") -> bool:
        """Whether another is the same tensors by other names."""
        mine, theirs = self.group.sources, other.group.sources
        return mine.keys() == theirs.keys() and all(
            mine[place].tensor == theirs[place].tensor for place in mine
        )

    def __str__(self) -> str:
        network = network_of(self.shapes)
        name = network.name if network else "an incomplete ConvNeXt"
        return f"{name} with {parameters_of(self.shapes):,} parameters"


def candidates_in(tensors: Mapping[str, Tensor]) -> list[Candidate]:
    """Finds the trunks in a dict of tensors, in the time that it takes to read the names."""
    # Under a prefix, by layout: the tensors of a trunk, and those that may be beside a trunk there.
    trunks: dict[str, dict[str, Group]] = {}
    for key, tensor in tensors.items():
        if len(tensor.shape) == 4 and tensor.shape[1] == 1 < tensor.shape[0]:
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


def _starts(name: str) -> Iterator[int]:
    """The places where a part of a name begins."""
    start = 0
    while start >= 0:
        yield start
        dot = name.find(".", start)
        start = dot + 1 if dot >= 0 else -1


def _around(prefix: str) -> str:
    """The prefix of the module that holds the one of a prefix."""
    return prefix[: prefix[:-1].rfind(".") + 1]


def checked(candidate: Candidate, keys: Collection[str]) -> tuple[Variant, dict[Place, Source]]:
    """Checks a trunk, and takes its last norm and its head if they fit.

    Args:
        candidate: Candidate.
        keys: collection of str. The names of all tensors in its dict.

    Returns:
        The network, and its tensors by their places.

    Raises:
        CheckpointError: If it is no ConvNeXt but something close, or lacks a tensor, or has one of
            another shape.
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
        raise CheckpointError(told(relative))
    if {place.variable for place in trunk if place.layer.endswith("/norm")} == {"gamma"}:
        raise CheckpointError(told(RMS_NORM))
    if foreign:
        raise CheckpointError(
            f"ConvNeXt has no place for the tensors {listed(foreign)}, which are among its own. "
            "Take a file of an unchanged network, or leave them out with ignore="
        )
    network = _checked_trunk(candidate, trunk)
    sources = trunk | _above(candidate, network, keys)
    for source in sources.values():
        if source.tensor.dtype.kind not in "fV":  # bfloat16 and float8 are of kind V
            raise CheckpointError(
                f"{source.key} holds {source.tensor.dtype}, and weights are floating-point. Take "
                "the file of weights from before it was quantized"
            )
    return network, sources


def _checked_trunk(candidate: Candidate, trunk: Mapping[Place, Source]) -> Variant:
    """Tells the network of a trunk, whose tensors are all there and of its shapes."""
    for form, tensor in candidate.group.misfits:
        raise CheckpointError(
            f"{form.key} has {len(form.axes)} axes in ConvNeXt. Received: a shape of {tensor.shape}"
        )
    for place, copy in candidate.group.copies:
        if place in trunk:
            raise CheckpointError(f"{trunk[place].key} and {copy.key} are the same tensor")
    found = {place: source.shape for place, source in trunk.items()}
    return check_whole(found, {place: source.key for place, source in trunk.items()})


def check_whole(found: Mapping[Place, tuple[int, ...]], names: Mapping[Place, str]) -> Variant:
    """Tells the network of tensors of these shapes, below its last norm.

    Args:
        found: dict from places to shapes.
        names: dict from places to the names in the file.

    Raises:
        CheckpointError: If one is missing or of another shape.
    """
    network = network_of(found)
    # A file of a few names may claim thousands of blocks, and no memory is spent on those.
    if network is None or sum(network.depths) > len(found):
        raise CheckpointError("The checkpoint lacks whole parts of a ConvNeXt")
    if network.kernel_size % 2 == 0:
        raise CheckpointError(
            f"The depthwise kernels have {network.kernel_size} x {network.kernel_size} places, and "
            "in a ConvNeXt an odd number"
        )
    expected = trunk_shapes(network, found[STEM_KERNEL][2])
    if missing := ["/".join(place) for place in expected if place not in found]:
        raise CheckpointError(f"The checkpoint lacks tensors of {network.name}: {listed(missing)}")
    for place, shape in found.items():
        if shape != expected[place]:
            raise CheckpointError(
                f"{names[place]} has the shape {shape} as {'/'.join(place)}, where a "
                f"{network.name} of depths {network.depths!s:.60} and dims {network.dims!s:.60} "
                f"has {expected[place]}"
            )
    return network


def _above(candidate: Candidate, network: Variant, keys: Collection[str]) -> dict[Place, Source]:
    """The last norm and the head, if they are those of the network."""
    layout, width = candidate.layout, network.dims[-1]
    found = candidate.above.sources | candidate.group.sources
    norm = {place: each for place, each in found.items() if place.layer == "norm"}
    head = {place: each for place, each in found.items() if place.layer == "head"}
    if f"{candidate.prefix}{NORMS_OF_MAPS.get(layout)}" in map(unwrapped, keys):
        norm = {}
    if len(norm) == 1:
        (source,) = norm.values()
        module = source.key.rpartition(".")[0]
        if not {f"{module}.weight", f"{module}.bias"} <= set(keys):
            raise CheckpointError(f"The last norm lacks a tensor: there is {source.key} alone")
    if len(norm) < 2 or any(source.shape != (width,) for source in norm.values()):
        return {}  # the head is no use without what it was trained with
    if {source.shape for source in head.values()} != {(width, n := _classes(head)), (n,)}:
        return norm
    # A head of several layers may begin or end with one of the same name.
    modules = {
        first_part(name_in_trunk(row, layout)) for row in LAYOUTS[layout] if row.ours == "head"
    }
    beside = [candidate.prefix, *([_around(candidate.prefix)] if layout in TRUNK_MODULES else [])]
    names = (name for each in beside for name in candidate.others_under(each, keys).values())
    return norm if any(first_part(name) in modules for name in names) else norm | head


def _classes(head: Mapping[Place, Source]) -> int:
    return head[HEAD_KERNEL].shape[1] if HEAD_KERNEL in head else 0


def equal_copies(candidate: Candidate, sources: Mapping[Place, Source]) -> Iterator[str]:
    """Returns the second names of tensors, such as DINOv3's last norm has, if they are equal."""
    for place, copy in candidate.group.copies:
        source = sources.get(place)
        if (
            source
            and source.shape == copy.shape
            and (source.tensor == copy.tensor or np.array_equal(source.read(), copy.read()))
        ):
            yield copy.key


def listed(names: Iterable[object]) -> str:
    """The first names of many, for a message."""
    shown = [str(name)[:100].encode("unicode_escape").decode() for name in names]
    more = f" and {len(shown) - 5} more" if len(shown) > 5 else ""
    return ", ".join(shown[:5]) + more if shown else "nothing"
