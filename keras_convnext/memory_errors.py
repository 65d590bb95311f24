"""Recognizes that memory is exhausted, from the errors of all libraries."""

import errno
import re

from keras_convnext.printable import PrintableError

# By name, because the libraries are not imported here: those of TensorFlow and PyTorch.
_OUT_OF_MEMORY = ("ResourceExhaustedError", "OutOfMemoryError")
# XLA, CUDA and cuDNN also report it with these; JAX's errors are RuntimeErrors.
_OF_ANYTHING = ("InternalError", "UnknownError")
_MESSAGE = re.compile(
    r"RESOURCE_EXHAUSTED|out of memory|OUT_OF_MEMORY|OOM when allocating|_ALLOC_FAILED"
)
# TensorFlow also calls these exhausted resources.
_OTHER_RESOURCE = re.compile("too many open files|no space left|quota exceeded", re.IGNORECASE)
_SEARCHED = 4000  # characters of a message, which may contain a whole graph


class OutOfMemoryError(PrintableError, MemoryError):
    """Memory is exhausted; the message says which settings need less."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether the cause of an error is that memory, of the machine or a device, is exhausted."""
    if isinstance(error, MemoryError):
        return True
    if error.__cause__ is not None:
        return is_out_of_memory(error.__cause__)
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    message = str(error)[:_SEARCHED]
    if type(error).__name__ in _OUT_OF_MEMORY:
        return not _OTHER_RESOURCE.search(message)
    # Not in other errors, whose messages may contain the names of files.
    may_be = isinstance(error, RuntimeError) or type(error).__name__ in _OF_ANYTHING
    return may_be and bool(_MESSAGE.search(message))
