"""What has been scored of the sets of `suites`: one file that is written after each part."""

import json
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from keras_convnext.classification.suites import SUITES, Suite, part_names
from keras_convnext.printable import PrintableError, printable
from keras_convnext.training.state import write_whole

_FILE = "state.json"
_LARGEST = 16 * 2**20  # bytes; 170 parts take 50 kB


class RobustnessError(PrintableError):
    """An output folder belongs to another model or to other data, or is damaged."""


class Score(NamedTuple):
    """The result of a part.

    Args:
        images: int. Number of images scored.
        right: int. Number of images classified correctly.
        left_out: int. Number of images that were not scored: of classes that the set or the model
            does not have, or without a label.
        notes: tuple of str. What is missing or was not scored.
        data: str. Digest of the images' names and of their labels.
    """

    images: int
    right: int
    left_out: int = 0
    notes: tuple[str, ...] = ()
    data: str = ""

    @property
    def error(self) -> float:
        """The share of images classified wrongly, in 0..1."""
        return 1 - self.right / self.images


@dataclass
class Measured:
    """What has been scored of a set.

    Args:
        notes: list of str. What of the release is not scored.
        is_published: bool. Whether these are the images that published figures are about.
        parts: dict from the names of parts to their scores.
    """

    notes: list[str] = field(default_factory=list)
    is_published: bool = True
    parts: dict[str, Score] = field(default_factory=dict)


@dataclass
class State:
    """The scores of a model, and what they depend on.

    Args:
        model: str. Digest of the weights, from `model_digest`.
        size: int. Side of the images, in pixels.
        limit: int or None. Number of images of each part.
        suites: dict from the names of sets to what has been scored.
    """

    model: str
    size: int
    limit: int | None
    suites: dict[str, Measured] = field(default_factory=dict)

    def save(self, output: Path | None) -> None:
        """Writes the state into a folder, unless it is None."""
        if output is not None:
            text = json.dumps(asdict(self), indent=1) + "\n"
            write_whole(output / _FILE, partial(Path.write_text, data=text, encoding="utf-8"))


def load_state(output: Path | None, model: str, size: int, limit: int | None) -> State:
    """Reads the state in a folder, or returns a new one.

    Raises:
        RobustnessError: If the state is damaged, or belongs to another model or other settings.
    """
    state = State(model, size, limit)
    if output is None or not (output / _FILE).exists():
        return state
    path = output / _FILE
    try:
        if path.stat().st_size > _LARGEST:
            raise ValueError("it is too large")
        found = json.loads(path.read_bytes())
        suites = {name: _measured(SUITES[name], entry) for name, entry in found["suites"].items()}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise RobustnessError(
            f"The state of the evaluation is damaged: {printable(error)}. Delete it, or use "
            f"another output folder. Received: {path}"
        ) from error
    for name, value in asdict(state).items():
        if name != "suites" and found.get(name) != value:
            raise RobustnessError(
                f"The folder belongs to an evaluation with another {name}: {found.get(name)}. "
                f"Use another output folder. Received: {name}={value}, output={output}"
            )
    state.suites = suites
    return state


def _measured(suite: Suite, entry: dict[str, Any]) -> Measured:
    parts, known = {}, part_names(suite)
    for part, (images, right, left_out, notes, data) in entry["parts"].items():
        if part not in known:
            raise ValueError(f"{suite.title} has no part {part}")
        if not 0 <= int(right) <= int(images) or int(left_out) < 0 or not int(images):
            raise ValueError(f"impossible counts of {part}")
        parts[part] = Score(
            int(images), int(right), int(left_out), tuple(map(str, notes)), str(data)
        )
    return Measured(list(map(str, entry["notes"])), bool(entry["is_published"]), parts)
