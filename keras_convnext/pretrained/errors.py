"""What goes wrong with weights that come from elsewhere."""

from keras_convnext.printable import PrintableError


class CheckpointError(PrintableError):
    """A file of weights is damaged, is not what it should be, or does not fit the model."""


class DownloadError(OSError):
    """A file of weights could not be had from a server, or not be kept."""
