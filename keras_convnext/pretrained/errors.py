"""What goes wrong with files of weights."""


class CheckpointError(ValueError):
    """A file of weights is damaged, is not what it should be, or does not fit the model."""
