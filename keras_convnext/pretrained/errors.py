"""Errors of loading and downloading weights."""

from keras_convnext.printable import PrintableError


class CheckpointError(PrintableError):
    """A weight file is damaged, of an unexpected kind, or does not fit the model."""


class DownloadError(OSError):
    """A weight file could not be downloaded or stored."""
