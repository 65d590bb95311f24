import pytest

from keras_convnext.demo import costs as costs_module
from keras_convnext.demo.costs import FREE, HALF_LIFE, RECENT, Costs, Line, address_of


class Clock:
    """A clock that stands still until it is put forward."""

    now = 1000.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def costs(clock):
    """The costs of a page where somebody is served."""
    costs = Costs(clock)
    costs.served["good"] = 1
    return costs


def test_what_is_beyond_the_free_seconds_halves(costs, clock):
    costs.add("bad", FREE)
    assert costs.excess("bad") == 0
    costs.add("bad", 3 * FREE)
    assert costs.excess("bad") == pytest.approx(3 * FREE)
    assert costs.wait("bad") == 2 * HALF_LIFE
    for left in (FREE, 0, 0):
        clock.now += HALF_LIFE
        assert costs.excess("bad") == pytest.approx(left)
    assert costs.wait("bad") == 1
    assert costs.excess("good") == 0


def test_work_adds_up_and_decays(costs, clock):
    for _ in range(100):  # a second of work every half-life approaches two
        costs.add("bad", FREE)
        clock.now += HALF_LIFE
    costs.add("bad", FREE)
    assert costs.excess("bad") == pytest.approx(FREE)


def test_an_address_that_behaves_never_has_an_excess_beside_hostile_ones(costs, clock):
    for _ in range(100):  # a photograph of 12 megapixels every ten seconds
        with costs.serving("bad"), costs.serving("worse"):
            for address in ("bad", "worse"):
                costs.add(address, 30)
            costs.add("good", 0.25)
            assert costs.excess("good") == 0
        assert costs.excess("bad") > 0
        clock.now += 10


def test_a_lone_address_has_no_excess(clock):
    costs = Costs(clock)
    for _ in range(100):
        with costs.serving("own"):
            costs.add("own", 10)
            assert costs.excess("own") == 0
    with costs.serving("other"):
        for _ in range(3):
            with costs.serving("own"):
                assert costs.excess("own") > 0
            clock.now += 10
    # After the other was served, its own requests do not matter.
    for _ in range(10):
        with costs.serving("own"):
            assert costs.excess("own") > 0
            clock.now += RECENT / 10
    clock.now += 0.01
    assert costs.excess("own") == 0
    for other in ("first", "second", "first", "third"):  # of two, the latest
        clock.now += 0.6 * RECENT
        with costs.serving(other):
            pass
    assert costs.excess("third") == 0
    costs.add("third", 10)
    assert costs.excess("third") > 0


def test_many_addresses_take_no_more_memory(costs, monkeypatch):
    monkeypatch.setattr(costs_module, "MOST_ADDRESSES", 100)
    for index in range(1000):
        with costs.serving(str(index)):
            costs.add(str(index), 100)
    assert len(costs._costs) == 100
    assert len(costs._latest) == 2
    assert set(costs.served) == {"good"}
    assert costs.excess("999") > 0
    assert costs.excess("0") == 0  # forgotten
    costs.add("900", 1)
    for index in range(1000, 1099):
        costs.add(str(index), 100)
    assert costs.excess("900") > 0
    assert costs.excess("901") == 0


class Entry:
    def __init__(self, address):
        self.address = address


def entries(text):
    return [Entry(address) for address in text.split()]


def in_order(line):
    order = []
    while len(line):
        order.append(line.first())
        line.leave(order[-1])
    return order


def addresses(line):
    return " ".join(entry.address for entry in in_order(line))


def test_the_address_with_the_least_excess_goes_first(costs):
    costs.add("bad", FREE + 1)
    costs.add("worse", FREE + 2)
    line = Line(costs, 10)
    for entry in entries("worse bad good worse"):
        assert line.join(entry) is None
    assert addresses(line) == "good bad worse worse"


def test_of_those_without_excess_the_first_goes_first(costs):
    costs.add("bad", FREE)
    line = Line(costs, 10)
    joined = entries("bad good worse good")
    for entry in joined:
        line.join(entry)
    assert in_order(line) == joined


def test_the_order_follows_the_costs_while_the_line_waits(costs):
    costs.add("worse", FREE + 1)
    line = Line(costs, 10)
    for entry in entries("worse worse bad"):
        line.join(entry)
    assert line.first().address == "bad"
    costs.add("bad", FREE + 5)
    assert addresses(line) == "worse worse bad"


def test_who_cost_most_leaves_a_full_line(costs):
    costs.add("bad", FREE + 1)
    costs.add("worse", FREE + 2)
    line = Line(costs, 2)
    bad, worse, good, other = entries("bad worse good good")
    assert line.join(worse) is None
    assert line.join(bad) is None
    assert line.join(good) is worse
    assert line.join(worse) is worse
    assert line.join(other) is bad
    assert line.join(bad) is bad
    late = Entry("late")  # as costly as those in line
    assert line.join(late) is late
    line.leave(good)
    line.leave(good)
    assert in_order(line) == [other]


def test_one_address_does_not_fill_a_line(costs):
    line = Line(costs, 10, most_of_one=2)
    first, second, third = entries("bad bad bad")
    assert [line.join(entry) for entry in (first, second, third)] == [None, None, third]
    assert line.join(*entries("good")) is None


@pytest.mark.parametrize(
    ("host", "address"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("2001:db8::1", "2001:db8::/64"),
        ("2001:db8::2:3", "2001:db8::/64"),
        ("2001:db8:0:1::1", "2001:db8:0:1::/64"),
        ("", ""),
        ("x" * 1000, "x" * 64),
    ],
)
def test_an_ipv6_network_is_one_visitor(host, address):
    assert address_of(host) == address
