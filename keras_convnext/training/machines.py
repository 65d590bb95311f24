"""What the machines of a run agree on before it starts, and the loss of one of them."""

import json
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import tensorflow as tf

from keras_convnext.printable import PrintableMessage, printable
from keras_convnext.training.layout import Layout

# What the other machines raise, at most about ten seconds later: from a closed connection, or from
# missing heartbeats.
_LOST = (tf.errors.UnavailableError, tf.errors.AbortedError, tf.errors.DeadlineExceededError)


class LostMachineError(PrintableMessage, RuntimeError):
    """Another machine of the run has stopped, or cannot be reached."""


@contextmanager
def noticing_losses(layout: Layout, output: Path) -> Iterator[None]:
    """Replaces what TensorFlow raises when another machine is lost.

    Raises:
        LostMachineError: If another machine has stopped, or cannot be reached.
    """
    try:
        yield
    except _LOST as error:
        if layout.processes == 1:
            raise
        raise LostMachineError(
            "Another machine of this run has stopped or cannot be reached; its own output may say "
            "why. Run the same command on all machines to resume from the last state. "
            f"Received: output={output}, machine {layout.process + 1} of {layout.processes}"
        ) from error


def check_same_run(
    strategy: tf.distribute.Strategy, layout: Layout, description: Mapping[str, Any]
) -> None:
    """Checks that all machines train the same run; all of them call this together.

    Raises:
        ValueError: If this machine has other settings or data than the first.
    """
    digest = zlib.crc32(json.dumps(description, sort_keys=True).encode()) >> 1  # fits in int32
    if of_first_machine(strategy, layout, [digest]) != [digest]:
        shown = {key: value for key, value in description.items() if key != "recipe"}
        raise ValueError(
            "This machine has other settings or data than the first machine of the run. Start the "
            "same command on all machines, with the same data. "
            f"Received: {printable(json.dumps(shown))} and the recipe of this command"
        )


def of_first_machine(
    strategy: tf.distribute.Strategy, layout: Layout, numbers: Sequence[int]
) -> list[int]:
    """Returns the integers that the first machine has passed; all call this together."""
    if layout.processes == 1:
        return list(numbers)

    def shared(own: tf.Tensor) -> tf.Tensor:
        context = tf.distribute.get_replica_context()
        is_first = tf.equal(context.replica_id_in_sync_group, 0)
        return context.all_reduce(tf.distribute.ReduceOp.SUM, tf.where(is_first, own, 0))

    found = strategy.run(shared, (tf.constant(numbers, tf.int32),))
    return [int(number) for number in strategy.experimental_local_results(found)[0]]
