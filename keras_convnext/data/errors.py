"""Errors and warnings about data."""

from keras_convnext.printable import PrintableError, PrintableMessage


class DataError(PrintableError):
    """Images or labels are missing, broken or inconsistent; the message names them."""


class DataWarning(PrintableMessage, UserWarning):
    """Something in a data folder was skipped, although it may have been intended as data."""


class NoSuchSplitError(DataError):
    """The data has no split of this name or an equivalent one."""


def missing_extra(package: str, purpose: str) -> ImportError:
    """Returns the error for an optional package that is not installed."""
    return ImportError(
        f'{purpose} need {package}: pip install "keras-convnext[train]"', name=package
    )
