"""Computes the published figures of the sets of `suites` from the scores of their parts."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from keras_convnext.classification.robustness_state import Measured, Score, State
from keras_convnext.classification.suite_data import listed
from keras_convnext.classification.suites import (
    ALEXNET_ERRORS,
    SEVERITIES,
    SUITES,
    WHOLE,
    Suite,
    rule_of,
)


class SuiteResult(NamedTuple):
    """The result of a set.

    Args:
        name: str. The set, one of those of `evaluate_suites`.
        title: str. Its name in tables.
        metric: str. "top-1", "ReaL" (accuracies), "mCE" or "error", or what was measured instead
            if corruptions or severities are missing.
        value: float or None. The figure, in percent. None if too much is missing.
        images: int. Number of images scored.
        left_out: int. Number of images that were not scored.
        rule: str. How images were prepared and scored.
        notes: tuple of str. What is missing or was not scored.
        is_comparable: bool. Whether the whole published set was scored.
        parts: mapping from str to Score. The counts of each corruption and severity, such as
            "fog/3", or of "images" for other sets.
        corruptions: tuple of CorruptionResult. The corruptions of which something was scored.
    """

    name: str
    title: str
    metric: str
    value: float | None
    images: int
    left_out: int
    rule: str
    notes: tuple[str, ...]
    is_comparable: bool
    parts: Mapping[str, Score]
    corruptions: tuple["CorruptionResult", ...] = ()


class CorruptionResult(NamedTuple):
    """The result of a corruption.

    Args:
        name: str. The corruption.
        errors: tuple of float or None. The error for each of the five severities, in percent.
        mean: float or None. Their mean, if all are known.
        ce: float or None. The corruption error (CE): the mean divided by AlexNet's, in percent.
            None for the corruptions of ImageNet-C-bar.
        is_extra: bool. Whether it is not part of the set's figure.
    """

    name: str
    errors: tuple[float | None, ...]
    mean: float | None
    ce: float | None
    is_extra: bool


def results_of(state: State) -> tuple[SuiteResult, ...]:
    """Returns the results of all sets of which something has been scored."""
    measured = {name: state.suites[name] for name in SUITES if name in state.suites}
    return tuple(_result(name, entry, state) for name, entry in measured.items() if entry.parts)


def _corruptions_of(suite: Suite, parts: Mapping[str, Score]) -> tuple[CorruptionResult, ...]:
    """Returns the results of the corruptions of which at least one severity was scored."""
    results = []
    for name in (*suite.corruptions, *suite.extras):
        scores = [parts.get(f"{name}/{severity}") for severity in SEVERITIES]
        errors = tuple(100 * score.error if score else None for score in scores)
        known = [error for error in errors if error is not None]
        if not known:
            continue
        # The errors are summed over severities before they are divided.
        mean = sum(known) / len(known) if len(known) == len(errors) else None
        alexnet = ALEXNET_ERRORS.get(name)
        ce = mean / alexnet if mean is not None and alexnet else None
        results.append(CorruptionResult(name, errors, mean, ce, name in suite.extras))
    return tuple(results)


def _result(name: str, measured: Measured, state: State) -> SuiteResult:
    suite = SUITES[name]
    corruptions = _corruptions_of(suite, measured.parts)
    if suite.layout == "corruptions":
        metric, value, missing = _of_corruptions(suite, corruptions)
        wanted = [f"{each}/{severity}" for each in suite.corruptions for severity in SEVERITIES]
    else:
        score = measured.parts[WHOLE]
        metric, value, missing = suite.metric, 100 * (1 - score.error), []
        wanted = [WHOLE]
    whole = suite.images if state.limit is None else min(suite.images, state.limit)
    notes = [*missing, *measured.notes, *_notes_of(suite, measured.parts, whole)]
    if state.limit is not None:
        notes.append(f"a sample of at most {state.limit:,} images of each part")
    is_whole = all(
        part in measured.parts and _size(measured.parts[part]) == suite.images for part in wanted
    )
    return SuiteResult(
        name,
        suite.title,
        metric,
        value,
        sum(score.images for score in measured.parts.values()),
        sum(score.left_out for score in measured.parts.values()),
        rule_of(suite, state.size),
        tuple(notes),
        is_whole and measured.is_published,
        dict(measured.parts),
        corruptions,
    )


def _size(score: Score) -> int:
    return score.images + score.left_out


def _of_corruptions(
    suite: Suite, corruptions: Sequence[CorruptionResult]
) -> tuple[str, float | None, list[str]]:
    """Returns what can be computed, its value, and notes about what is missing for the figure."""
    results = {each.name: each for each in corruptions if not each.is_extra}
    absent = [name for name in suite.corruptions if name not in results]
    missing = []
    if absent:
        missing.append(f"missing corruptions: {listed(absent)}")
    for name, result in results.items():
        gaps = [str(each) for each, error in zip(SEVERITIES, result.errors) if error is None]
        if gaps:
            missing.append(f"missing severities of {name}: {', '.join(gaps)}")
    whole = [each for each in results.values() if each.mean is not None]
    values = [each.ce if suite.metric == "mCE" else each.mean for each in whole]
    known = [value for value in values if value is not None]
    value = sum(known) / len(known) if known else None
    if len(known) == len(suite.corruptions):
        return suite.metric, value, missing
    what = "mean CE" if suite.metric == "mCE" else "mean error"
    return f"{what} of {len(known)} of {len(suite.corruptions)} corruptions", value, missing


def _notes_of(suite: Suite, parts: Mapping[str, Score], whole: int) -> list[str]:
    """Returns the notes of the parts, each with the parts that it is about."""
    about: dict[str, list[str]] = {}
    for name, score in parts.items():
        for note in score.notes:
            about.setdefault(note, []).append(name)
        if suite.layout == "reassessed" and score.left_out:
            note = (
                f"skipped {score.left_out:,} of {_size(score):,} images, which have no label among "
                "the model's classes"
            )
            about.setdefault(note, []).append(name)
        if _size(score) != whole:
            note = f"{_size(score):,} images, but the published set has {whole:,}"
            about.setdefault(note, []).append(name)
    return [
        note if names == [WHOLE] else f"{listed(names)}: {note}" for note, names in about.items()
    ]
