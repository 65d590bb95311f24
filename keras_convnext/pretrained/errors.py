"""What goes wrong with weights that come from elsewhere."""


class CheckpointError(ValueError):
    """A file of weights is damaged, is not what it should be, or does not fit the model."""


class DownloadError(OSError):
    """A file of weights could not be had from a server, or not be kept."""
