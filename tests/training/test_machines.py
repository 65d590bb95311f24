"""What a machine says when another is lost. `test_run.py` kills real ones, slowly."""

import pytest
import tensorflow as tf

from keras_convnext.training.layout import Layout
from keras_convnext.training.machines import LostMachineError, noticing_losses, of_first_machine

ONE, SECOND = Layout(0, 1, 1, 4, 1), Layout(1, 2, 1, 4, 1)


@pytest.mark.parametrize("kind", [tf.errors.UnavailableError, tf.errors.AbortedError])
def test_the_message_says_what_to_do(kind, tmp_path):
    with (
        pytest.raises(
            LostMachineError, match=r"same command on all machines.*run\\x1b, machine 2 of 2"
        ),
        noticing_losses(SECOND, tmp_path / "run\x1b"),
    ):
        raise kind(None, None, "Collective ops is aborted by: Connection reset by peer")


def test_other_errors_stay_as_they_are(tmp_path):
    for layout, kind in ((ONE, tf.errors.UnavailableError), (SECOND, tf.errors.InternalError)):
        with pytest.raises(kind), noticing_losses(layout, tmp_path):
            raise kind(None, None, "another reason")


def test_a_single_machine_is_the_first():
    assert of_first_machine(tf.distribute.get_strategy(), ONE, [7, 3]) == [7, 3]
