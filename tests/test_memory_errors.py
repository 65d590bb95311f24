"""Errors of libraries that mean that memory is exhausted, and those that only resemble them."""

import errno
import os

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from keras_convnext.data.checks import is_of_input
from keras_convnext.memory_errors import OutOfMemoryError, is_out_of_memory
from keras_convnext.pictures import ImageError, read_picture

HUGE = 2**22  # squared, 64 TiB of float32


class JaxRuntimeError(RuntimeError):
    """As of JAX and XLA."""


def noise(_=0):
    return tf.random.normal((HUGE, HUGE))


def of_xla():
    tf.function(lambda: tf.sort(noise()), autograph=False, jit_compile=True)()


def of_dataset():
    options = tf.data.Options()
    options.experimental_optimization.inject_prefetch = False  # which would try, and wait, again
    next(iter(tf.data.Dataset.range(1).map(noise).with_options(options)))


# TensorFlow waits ten seconds for memory to be freed.
@pytest.mark.parametrize(
    "attempt",
    [
        pytest.param(noise, id="tensor", marks=pytest.mark.slow),
        pytest.param(of_dataset, id="dataset", marks=pytest.mark.slow),
        pytest.param(of_xla, id="xla", marks=pytest.mark.slow),
        pytest.param(lambda: np.zeros((2**30, 2**20)), id="array"),
    ],
)
def test_the_errors_of_libraries_are_recognized(attempt):
    with pytest.raises(Exception, match=r"memory|OOM|allocate") as caught:
        attempt()
    assert is_out_of_memory(caught.value)
    assert not is_of_input(caught.value)


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 4 bytes."), True),
        (type("OutOfMemoryError", (RuntimeError,), {})("CUDA out of memory."), True),
        (RuntimeError("CUDNN_STATUS_ALLOC_FAILED"), True),
        (tf.errors.InternalError(None, None, "CUDA_ERROR_OUT_OF_MEMORY: out of memory"), True),
        (tf.errors.InternalError(None, None, "NCCL: unhandled error"), False),
        (OSError(errno.ENOMEM, os.strerror(errno.ENOMEM)), True),
        (OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), False),
        (tf.errors.ResourceExhaustedError(None, None, "OOM when allocating tensor"), True),
        (tf.errors.ResourceExhaustedError(None, None, "a.jpg; Too many open files"), False),
        (tf.errors.NotFoundError(None, None, "out of memory.jpg; No such file"), False),
        (ValueError("Not an image. Received: out of memory.jpg"), False),
        (OutOfMemoryError("set a smaller batch"), True),
    ],
)
def test_messages_are_only_trusted_in_errors_without_names_of_files(error, expected):
    assert is_out_of_memory(error) is expected


def test_the_cause_of_an_error_counts(monkeypatch):
    def exhausted(*_, **__):
        raise MemoryError

    monkeypatch.setattr(Image, "open", exhausted)
    with pytest.raises(ImageError, match="not enough memory for the image") as caught:
        read_picture(b"an image")
    assert is_out_of_memory(caught.value)


def test_our_own_error_is_printable():
    assert str(OutOfMemoryError("a\x1bb")) == "a\\x1bb"
