"""Errors of loading and downloading weights."""

from keras_convnext.printable import PrintableError, printable


class CheckpointError(PrintableError):
    """A weight file is damaged, of an unexpected kind, or does not fit the model."""


class DownloadError(OSError):
    """A weight file could not be downloaded or stored. The message has one line per address."""

    def __init__(self, message: object = "") -> None:
        super().__init__("\n".join(map(printable, str(message).split("\n"))))
