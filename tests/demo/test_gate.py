import asyncio

import pytest

from keras_convnext.demo import gate as gate_module
from keras_convnext.demo.costs import FREE, HALF_LIFE, Costs
from keras_convnext.demo.gate import SHARE, BusyError, Gate

BAD = [f"bad{index}" for index in range(20)]


class Loop(asyncio.SelectorEventLoop):
    """An event loop whose clock is put forward instead of waiting."""

    now = 0.0

    def time(self):
        return self.now

    def _run_once(self):
        if self._scheduled and not self._ready:
            self.now = max(self.now, self._scheduled[0].when())
        super()._run_once()


@pytest.fixture
def loop():
    loop = Loop()
    yield loop
    loop.close()


@pytest.fixture
def costs(loop):
    """The costs of a page with hostile visitors and one who is served and behaves."""
    costs = Costs(loop.time)
    costs.served["good"] = 1
    for address in BAD:
        costs.add(address, 20 * FREE)
    return costs


def entered(loop, gate, *requests):
    """Whose requests were let in and refused, and when."""
    times, refused = [], []

    async def enter(address, seconds):
        try:
            await gate.enter(address, seconds)
            times.append((address, loop.now))
        except BusyError:
            refused.append((address, loop.now))

    async def all_enter():
        await asyncio.gather(*(enter(*request) for request in requests))

    loop.run_until_complete(all_enter())
    return times, refused


def test_an_address_that_behaves_is_never_delayed(loop, costs):
    gate = Gate(costs)

    async def visits():
        foes = [asyncio.ensure_future(gate.enter(address, 0.2 * SHARE)) for address in BAD * 4]
        for _ in range(10):
            await asyncio.sleep(1)
            before = loop.now
            await gate.enter("good", 0.02)
            assert loop.now == before
        return foes

    foes = loop.run_until_complete(visits())
    assert 0 < sum(foe.done() for foe in foes) < len(foes)
    loop.run_until_complete(asyncio.gather(*foes))


def test_costly_addresses_have_a_share_of_a_core(loop, costs):
    times, refused = entered(loop, Gate(costs), *((address, 0.02) for address in BAD))
    assert not refused
    assert [when for _, when in times] == pytest.approx(
        [index * 0.02 / SHARE for index in range(len(BAD))]
    )


def test_who_cost_less_goes_first(loop, costs):
    costs.served["other"] = 1
    costs.add("good", FREE + 0.5)
    times, _ = entered(loop, Gate(costs), (BAD[0], 0.1), (BAD[1], 0.1), ("good", 0.002))
    assert [address for address, _ in times] == [BAD[0], "good", BAD[1]]
    assert [when for _, when in times] == pytest.approx([0, 0.1 / SHARE, 0.102 / SHARE])


def test_a_lone_address_is_not_delayed(loop):
    costs = Costs(loop.time)
    gate = Gate(costs)
    costs.served["own"] = 1
    for _ in range(100):
        costs.add("own", 10)
        times, _ = entered(loop, gate, ("own", 0.2))
        assert times == [("own", 0)]


def test_those_who_wait_are_let_in_once_the_others_are_served(loop, costs):
    pause = 0.2 / SHARE
    loop.call_at(2.5 * pause, costs.served.clear)
    times, _ = entered(loop, Gate(costs), *[(BAD[0], 0.2)] * 6)
    assert [when / pause for _, when in times] == pytest.approx([0, 1, 2, 3, 3, 3])


def test_waiting_has_an_end(loop, costs, monkeypatch):
    monkeypatch.setattr(gate_module, "LONGEST", 5)
    times, refused = entered(loop, Gate(costs), *((address, 2 * SHARE) for address in BAD))
    assert len(times) == 3
    assert [when for _, when in refused] == pytest.approx([5] * 17)


def test_too_many_requests_are_refused(loop, costs, monkeypatch):
    monkeypatch.setattr(gate_module, "MOST_WAITING", 9)
    monkeypatch.setattr(gate_module, "MOST_OF_ONE", 4)
    for requests, most in (([BAD[0]] * 9, 4), (BAD, 9)):
        started = loop.now
        times, refused = entered(loop, Gate(costs), *((address, 0.02) for address in requests))
        assert len(times) == 1 + most  # the first did not have to wait
        assert {when for _, when in refused} == {started}


def test_a_request_that_is_cancelled_leaves_no_trace(loop, costs):
    gate = Gate(costs)

    async def leaves():
        await gate.enter(BAD[0], 0.1)
        leaving = asyncio.ensure_future(gate.enter(BAD[1], 0.1))
        await asyncio.sleep(0)
        assert len(gate._line) == 1
        leaving.cancel()
        with pytest.raises(asyncio.CancelledError):
            await leaving

    loop.run_until_complete(leaves())
    assert not len(gate._line)
    assert entered(loop, gate, (BAD[2], 0.1))[0] == [(BAD[2], pytest.approx(0.1 / SHARE))]


def test_a_request_is_paid_for(loop, costs):
    entered(loop, Gate(costs), ("good", 0.2), ("good", 0.3))
    assert costs._of("good") == pytest.approx(0.5)


def test_costs_that_decay_are_forgiven(loop, costs):
    loop.now = 5 * HALF_LIFE
    times, _ = entered(loop, Gate(costs), *((address, 0.02) for address in BAD))
    assert {when for _, when in times} == {loop.now}
