"""Opens a checkpoint in any layout as a dict from our variables to its tensors."""

import fnmatch
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from keras_convnext.pretrained.entries import Entry, entries_of, names_in, unnamed_tensors
from keras_convnext.pretrained.errors import CheckpointError
from keras_convnext.pretrained.h5_file import H5Tensor
from keras_convnext.pretrained.image_size import recorded_size
from keras_convnext.pretrained.keras_trunk import keras_prefixes, keras_trunk
from keras_convnext.pretrained.layouts import HEAD_KERNEL, Place
from keras_convnext.pretrained.limits import check_claims, check_number
from keras_convnext.pretrained.relatives import explained, relative_of
from keras_convnext.pretrained.snapshot import weight_file
from keras_convnext.pretrained.source import Source, Tensor
from keras_convnext.pretrained.trunks import (
    Candidate,
    candidates_in,
    checked,
    equal_copies,
    listed,
)
from keras_convnext.pretrained.weight_files import format_of, read
from keras_convnext.variants import Variant

# The official training stores the weights and their exponential moving average.
OFFICIAL_ENTRIES = ("model", "model_ema")


@dataclass(frozen=True)
class OpenCheckpoint:
    """A ConvNeXt found in a file.

    Args:
        network: Variant. Named "convnext" if it is not a published network.
        sources: dict from places to tensors.
        layout: str. Naming scheme of its tensors, a key of `LAYOUTS`.
        entry: str. The dict of tensors that contains it, or "" for the top level of the file.
        prefix: str. Prefix of its tensor names.
        ignored: tuple of str. The other tensors in the file, or only those in the entry or under
            the prefix if one was requested.
        beside: tuple of str. The ignored tensors as listed in a message: counts for other entries,
            names in its own.
        size: int or None. Side of the training images in pixels, if recorded.
        tensors: dict from names to tensors. All tensors of its entry.
    """

    network: Variant
    sources: dict[Place, Source]
    layout: str
    entry: str = ""
    prefix: str = ""
    ignored: tuple[str, ...] = ()
    beside: tuple[str, ...] = ()
    size: int | None = None
    tensors: Mapping[str, Tensor] = field(default_factory=dict)

    @property
    def classes(self) -> int | None:
        """Number of classes, or None without a head."""
        return self.sources[HEAD_KERNEL].shape[1] if HEAD_KERNEL in self.sources else None

    @property
    def notice(self) -> str | None:
        """A message about the ignored tensors, or None if there are none."""
        if not self.ignored:
            return None
        where = {"entry": self.entry, "prefix": self.prefix}
        place = ", ".join(f"{name} {shown(value)}" for name, value in where.items() if value)
        number = f"{len(self.ignored)} other tensor{'s' * (len(self.ignored) > 1)}"
        found = f"{self.network.name} at {place}" if place else self.network.name
        return f"Found {found} and ignored {number}: {listed(self.beside or self.ignored)}"


def open_checkpoint(
    path: str | Path,
    entry: str | None = None,
    prefix: str | None = None,
    ignore: str | Iterable[str] = (),
    expected: Variant | None = None,
) -> OpenCheckpoint:
    """Finds the ConvNeXt in a file without reading its tensors, which are read on demand.

    Args:
        path: str or path. A PyTorch, safetensors, HDF5 or `.keras` file in any of the layouts, the
            index of a sharded checkpoint, or a folder that contains one of these.
        entry: str or None. The dict of tensors to search, such as "state.model". Defaults to None,
            which searches all of them and prefers `model` in an official training checkpoint.
        prefix: str or None. Prefix of its tensor names, such as "student.backbone.". Defaults to
            None, for any prefix.
        ignore: str or iterable of str. Patterns of tensor names to drop first, such as "head.*".
            Defaults to ().
        expected: Variant or None. The network to assume where a `.weights.h5` file is ambiguous.
            Defaults to None.

    Raises:
        CheckpointError: If the file is damaged, or contains no ConvNeXt or several; the message
            names the file.
        FileNotFoundError: If the file does not exist.
    """
    path = weight_file(path)
    saved = read(path)
    patterns = [ignore] if isinstance(ignore, str) else list(ignore)
    is_left_out = re.compile("|".join(map(fnmatch.translate, patterns)) or r"(?!)").match
    try:
        if format_of(path) in ("hdf5", "keras"):
            saved = {key: each for key, each in saved.items() if not is_left_out(key)}
            return _of_keras(saved, prefix, expected)
        entries = [
            Entry(each.path, {k: v for k, v in each.tensors.items() if not is_left_out(k)})
            for each in entries_of(saved)
        ]
        check_number(sum(len(each.tensors) for each in entries))
        checkpoint = chosen(saved, entries, entry, prefix)
        check_claims(source.tensor for source in checkpoint.sources.values())
        return replace(checkpoint, size=recorded_size(path, saved))
    except CheckpointError as error:
        raise CheckpointError(f"{error} (file: {path})") from error


def chosen(
    saved: object, entries: list[Entry], entry: str | None, prefix: str | None
) -> OpenCheckpoint:
    """Returns the requested trunk, or the only one."""
    within = [each for each in entries if entry is None or each.is_within(entry)]
    if not within:
        raise CheckpointError(_no_entry(saved, entries, entry))
    found = [(each, candidate) for each in within for candidate in candidates_in(each.tensors)]
    if not found:
        raise CheckpointError(_nothing(saved, within))
    wanted = found
    if prefix is not None:
        wanted = [pair for pair in found if pair[1].prefix.rstrip(".") == prefix.rstrip(".")]
        if not wanted:
            raise CheckpointError(
                f"There is no ConvNeXt with the prefix {shown(prefix)}. Available: {_list(found)}"
            )
    if any(candidate.is_whole for _, candidate in wanted):
        wanted = [pair for pair in wanted if pair[1].is_whole]
    if {each.name for each, _ in wanted} == set(OFFICIAL_ENTRIES):
        wanted = [pair for pair in wanted if pair[0].name == OFFICIAL_ENTRIES[0]]
    home, candidate = wanted[0]
    if not all(candidate.same_tensors(other) for _, other in wanted[1:]):
        several = {each.name for each, _ in wanted}
        options = ["entry="] * (len(several) > 1) + ["prefix="] * (len(several) < len(wanted))
        raise CheckpointError(
            f"The file contains {len(wanted)} ConvNeXts: {_list(wanted)}. Choose one with "
            f"{' and '.join(options)}"
        )
    network, sources = checked(candidate, home.tensors)
    used = {source.key for source in sources.values()} | {*equal_copies(candidate, sources)}
    ignored = [
        key
        for key in home.tensors
        if key not in used and (prefix is None or key.startswith(candidate.prefix))
    ]
    numbers: Counter[str] = Counter()
    beside = ignored.copy()
    if entry is None and prefix is None:
        at_home = {id(tensor) for tensor in home.tensors.values()}  # may be stored repeatedly
        for other in within:
            others = [key for key, tensor in other.tensors.items() if id(tensor) not in at_home]
            if others:
                ignored += [".".join((*other.path, key)) for key in others]
                numbers[other.path[0] if other.path else "the file itself"] += len(others)
    return OpenCheckpoint(
        network,
        sources,
        candidate.layout,
        home.name,
        candidate.prefix,
        tuple(ignored),
        (*(f"{name} ({number})" for name, number in numbers.items()), *beside),
        tensors=home.tensors,
    )


def _no_entry(saved: object, entries: list[Entry], entry: str | None) -> str:
    names = names_in(saved)
    if entry is None:
        if lists := list(unnamed_tensors(saved)):
            name, number = max(lists, key=lambda each: each[1])
            return (
                f"The file contains a list of {number} tensors without names at {shown(name)}. "
                "Load it with the program that wrote it, and save model.state_dict()"
            )
        held = f", only {listed(names)}" if names else ""
        if (kind := _kind_without_numbers(saved)) is not None:
            return f"The file contains {kind}. Save model.state_dict() instead"
        return f"The file contains no tensors{held}. Save model.state_dict() instead"
    if entry in names:
        return f"The entry {shown(entry)} contains no tensors"
    nested = [each.name for each in entries if candidates_in(each.tensors)]
    if nested == [""]:
        return f"The file is one dict of tensors without entries: omit entry={shown(entry)}"
    hint = f". Entries with a ConvNeXt: {listed(nested)}" if nested else ""
    return f"The file has no entry {shown(entry)}. Its entries: {listed(names)}{hint}"


def _kind_without_numbers(saved: object) -> str | None:
    """Returns what a file contains instead of tensors, if it is known."""
    values = saved.values() if isinstance(saved, Mapping) else ()
    names = {getattr(value, "name", "") for each in values for value in _with_members(each)}
    if any(name.startswith("numpy.") and name.endswith("._reconstruct") for name in names):
        return "NumPy arrays, not tensors"
    if "torch._utils._rebuild_meta_tensor_no_storage" in names:
        return "tensors on the meta device, which have no values"
    return None


def _with_members(value: object) -> list[object]:
    return [value, *value.values()] if isinstance(value, Mapping) else [value]


def _nothing(saved: object, entries: list[Entry]) -> str:
    """Explains why no trunk was found."""
    if relative := relative_of(key for each in entries for key in each.tensors):
        return explained(relative)
    largest = max(entries, key=lambda each: len(each.tensors))
    lists = [f"{shown(name)} ({number} tensors)" for name, number in unnamed_tensors(saved)]
    hint = f". The tensors in the list at {lists[0]} have no names" if lists else ""
    return f"Not a ConvNeXt in any supported layout. Its tensors: {listed(largest.tensors)}{hint}"


def _list(found: list[tuple[Entry, Candidate]]) -> str:
    """Lists trunks for a message."""
    lines = []
    for entry, candidate in found[:8]:
        where = [f"entry={shown(entry.name)}"] * bool(entry.name)
        lines.append(f"{', '.join([*where, f'prefix={shown(candidate.prefix)}'])}: {candidate}")
    more = [f"and {len(found) - 8} more"] * (len(found) > 8)
    return "; ".join([*lines, *more])


def shown(name: str) -> str:
    """Quotes a name from the file for a message."""
    return ascii(name[:100])


def _of_keras(
    tensors: dict[str, H5Tensor], prefix: str | None, expected: Variant | None
) -> OpenCheckpoint:
    """Returns the network in a file saved by Keras, at the top level or in a nested model."""
    if not tensors:
        raise CheckpointError("The file contains no tensors")
    found = keras_prefixes(tensors) or [""]
    wanted = [each for each in found if prefix is None or each.rstrip("/") == prefix.rstrip("/")]
    if not wanted:
        raise CheckpointError(
            f"There is no ConvNeXt with the prefix {shown(str(prefix))}. Available prefixes: "
            f"{listed(map(shown, found))}"
        )
    if len(wanted) > 1:
        raise CheckpointError(
            f"The file contains ConvNeXts with the prefixes {listed(map(shown, found))}. Choose "
            "one with prefix="
        )
    layout, network, sources, others = keras_trunk(tensors, wanted[0], expected)
    return OpenCheckpoint(network, sources, layout, "", wanted[0], tuple(others))
