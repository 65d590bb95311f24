"""What goes wrong with data, under one name."""

from keras_convnext.printable import PrintableError


class DataError(PrintableError):
    """The images or the labels are not what a run needs; the message names the culprit."""


class DataWarning(UserWarning):
    """Something beside the images is left out, which might have been meant."""


class NoSuchSplitError(DataError):
    """The data has no split of that name, or of one that means the same."""


def missing_extra(package: str, purpose: str) -> ImportError:
    """Makes the error for an optional package that is not there."""
    return ImportError(
        f'{purpose} need {package}: pip install "keras-convnext[train]"', name=package
    )
