import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from bad_uploads import encoded, png_of, scanned

from keras_convnext.demo import lanes as lanes_module
from keras_convnext.demo.answers import Classifier
from keras_convnext.demo.costs import REFUSED, Costs, Line
from keras_convnext.demo.decoder import MOST_MEMORY, UploadError
from keras_convnext.demo.lanes import CLASSIFY, SLOW_SHARE, Lane, Lanes
from keras_convnext.demo.uploads import Space, Upload, Uploads

SLOW = scanned(90, (3000, 2000))  # expected to take more than a second
POSIX = pytest.mark.skipif(not hasattr(signal, "SIGSTOP"), reason="stops a process")


class Network:
    """Answers everything, and counts what it was asked."""

    count = 0

    def __call__(self, pixels):
        self.count += 1
        return np.array([[0.25, 0.75]], "float32")


@pytest.fixture
def network():
    return Network()


@pytest.fixture
def lanes(network):
    made = Lanes(Classifier(network, 32, "ab"))
    yield made
    made.close()


def upload(tmp_path, data, name="photo"):
    (tmp_path / "upload").write_bytes(data)
    return Upload((tmp_path / "upload").open("rb"), name, Space(Uploads()))


def in_thread(work, *arguments):
    """Returns what `work` raised, once it is joined."""
    raised = []

    def run():
        try:
            work(*arguments)
        except UploadError as error:
            raised.append(str(error))

    thread = threading.Thread(target=run)
    thread.start()
    return thread, raised


def stopped(decoder):
    """Waits until a decoder works, and stops its process."""
    while decoder._process is None:
        time.sleep(0.01)
    os.kill(decoder._process.pid, signal.SIGSTOP)


def test_ordinary_and_slow_pictures_are_answered(lanes, tmp_path):
    assert list(lanes.answer(upload(tmp_path, encoded("JPEG"))).labels) == ["b", "a"]
    assert lanes._decoders[-1]._process is None
    assert list(lanes.answer(upload(tmp_path, SLOW)).labels) == ["b", "a"]
    assert lanes._decoders[-1]._process


@POSIX
def test_a_slow_picture_does_not_stop_the_others_and_is_given_up(lanes, tmp_path):
    lanes._decoders[-1]._seconds = 4
    lanes.answer(upload(tmp_path, encoded("JPEG")))
    thread, raised = in_thread(lanes.answer, upload(tmp_path, SLOW, "slow.jpg"))
    stopped(lanes._decoders[-1])
    for _ in range(3):
        assert lanes.answer(upload(tmp_path, encoded("JPEG"))).labels
    assert thread.is_alive()
    thread.join()
    (message,) = raised
    assert message.startswith("slow.jpg takes too long")
    assert lanes.answer(upload(tmp_path, SLOW)).labels


@POSIX
def test_slow_pictures_give_way(lanes, tmp_path):
    lanes.answer(upload(tmp_path, SLOW))
    quick, slow = (
        os.getpriority(os.PRIO_PROCESS, decoder._process.pid) for decoder in lanes._decoders
    )
    assert slow == min(quick + 10, 19)


@POSIX
def test_a_process_that_ends_is_replaced(lanes, tmp_path):
    lanes.answer(upload(tmp_path, encoded("JPEG")))
    decoder = lanes._decoders[0]
    os.kill(decoder._process.pid, signal.SIGKILL)
    decoder._process.wait()
    assert lanes.answer(upload(tmp_path, encoded("JPEG"))).labels


def test_one_process_does_where_memory_is_scarce(network, tmp_path, monkeypatch):
    monkeypatch.setattr(lanes_module, "_available_memory", lambda: MOST_MEMORY)
    lanes = Lanes(Classifier(network, 32, "ab"))
    assert lanes.answer(upload(tmp_path, SLOW)).labels
    assert len(lanes._decoders) == 1
    lanes.close()


@pytest.mark.parametrize("first", [encoded("JPEG"), SLOW], ids=["ordinary", "slow"])
def test_nothing_is_decoded_for_a_visitor_who_has_gone(first, lanes, network, tmp_path):
    gone = upload(tmp_path, first, "gone.jpg")
    gone.abandon()
    with pytest.raises(UploadError, match=r"gone\.jpg waited for too long"):
        lanes.answer(gone)
    assert network.count == 0
    assert lanes._decoders[0]._process is None


@pytest.fixture
def busy(tmp_path):
    """A lane where one may wait, whose worker is busy."""
    lane, go, started = Lane(Costs(), 1), threading.Event(), threading.Event()

    def work():
        started.set()
        go.wait()

    running, _ = in_thread(lane.wait, work, upload(tmp_path, b""))
    started.wait()
    lane.go = go
    yield lane
    go.set()
    running.join()


def test_who_leaves_a_queue_makes_room_at_once(busy, tmp_path):
    leaving, done = upload(tmp_path, b"", "leaving.jpg"), []
    waiting, raised = in_thread(busy.wait, lambda: done.append(1), leaving)
    while not len(busy._line):
        time.sleep(0.01)
    with pytest.raises(UploadError, match=r"Too many pictures are waiting: try photo again"):
        busy.wait(lambda: None, upload(tmp_path, b""))
    assert busy._costs._of("") > 0.9 * REFUSED
    leaving.abandon()
    waiting.join()
    assert raised == ["leaving.jpg waited for too long: try again later."]
    assert not len(busy._line)
    assert not done


def test_a_visitor_does_not_wait_for_ever(tmp_path, monkeypatch):
    monkeypatch.setattr(lanes_module, "PATIENCE", 0.05)
    go = threading.Event()
    with pytest.raises(UploadError, match="waited for too long"):
        Lane(Costs(), 1).wait(go.wait, upload(tmp_path, b""))
    go.set()


def test_an_address_that_cost_much_waits(busy, tmp_path):
    costs, done = Costs(), []
    busy._line = Line(costs, 3)
    costs.add("bad", 30)
    costs.served["good"] = 1
    waiting = []
    for address in ("bad", "good"):
        from_there = upload(tmp_path, b"")
        from_there.address = address
        thread, _ = in_thread(busy.wait, partial(done.append, address), from_there)
        waiting.append(thread)
        while len(busy._line) < len(waiting):
            time.sleep(0.01)
    busy.go.set()
    for thread in waiting:
        thread.join()
    assert done == ["good", "bad"]


def test_a_lane_pauses_while_others_are_served(tmp_path, monkeypatch):
    monkeypatch.setattr(lanes_module, "SOON", 0.01)
    costs, done = Costs(), []
    lane = Lane(costs, 5, pause=lambda: 1000)
    lane.wait(lambda: done.append("alone"), upload(tmp_path, b""))
    costs.served["other"] = 1
    waiting, _ = in_thread(lane.wait, lambda: done.append("late"), upload(tmp_path, b""))
    waiting.join(0.1)
    assert done == ["alone"]
    costs.served.clear()
    waiting.join()
    assert done == ["alone", "late"]


def test_the_slow_process_pauses_after_a_picture(lanes, tmp_path):
    assert [decoder.pause() for decoder in lanes._decoders] == [0, 0]
    lanes.answer(upload(tmp_path, SLOW))
    quick, slow = lanes._decoders
    assert quick.pause() == 0
    assert 0 < slow.pause() < (1 / SLOW_SHARE - 1) * lanes.costs._of("")


def test_decoding_and_refusals_are_paid_for(lanes, tmp_path):
    for data, least in ((encoded("JPEG"), CLASSIFY), (SLOW, 0.1), (b"no picture", REFUSED)):
        sent = upload(tmp_path, data)
        sent.address = "visitor"
        before = lanes.costs._of("visitor")
        with suppress(UploadError):
            lanes.answer(sent)
        assert lanes.costs._of("visitor") > before + 0.9 * least


@POSIX
def test_who_ends_a_process_pays_for_the_time_it_may_take(lanes, tmp_path):
    lanes.answer(upload(tmp_path, encoded("JPEG")))
    decoder = lanes._decoders[0]
    os.kill(decoder._process.pid, signal.SIGSTOP)
    decoder._seconds = 0.1
    with pytest.raises(UploadError, match="takes too long"):
        lanes.answer(upload(tmp_path, encoded("JPEG")))
    assert 0.1 < lanes.costs._of("") < 0.3


def test_the_time_of_the_network_does_not_count(tmp_path):
    def slow(pixels):
        time.sleep(0.5)
        return np.array([[0.25, 0.75]], "float32")

    lanes = Lanes(Classifier(slow, 32, "ab"))
    lanes.answer(upload(tmp_path, encoded("JPEG")))
    assert CLASSIFY / 2 < lanes.costs._of("") < 2 * CLASSIFY
    lanes.close()


def test_errors_of_the_network_reach_the_page(tmp_path):
    def broken(pixels):
        raise RuntimeError("The network does not work.")

    lanes = Lanes(Classifier(broken, 32, "ab"))
    with pytest.raises(RuntimeError, match="does not work"):
        lanes.answer(upload(tmp_path, encoded("JPEG")))
    lanes.close()


@pytest.mark.skipif(not Path("/proc/self/limits").exists(), reason="as Linux tells it")
def test_the_memory_of_a_decoder_is_limited(lanes, tmp_path):
    lanes.answer(upload(tmp_path, png_of(7000, 7000)))  # 49 megapixels fit
    for decoder in lanes._decoders:
        limits = Path(f"/proc/{decoder._process.pid}/limits").read_text()
        assert f"Max address space         {MOST_MEMORY}" in limits


def test_a_decoder_imports_no_backend():
    code = "import keras_convnext.demo.decoder, sys; print('keras' in sys.modules)"
    command = [sys.executable, "-c", f"import sys; sys.path[:] = {sys.path}; {code}"]
    assert subprocess.run(command, capture_output=True, text=True).stdout == "False\n"
