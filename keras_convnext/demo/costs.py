"""What each address has cost lately, and who goes first.

An address that costs little never waits for one that costs much. The others are slowed down, and
only while somebody else is served. Nobody is locked out.
"""

import ipaddress
import math
import threading
import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import chain
from typing import Generic, Protocol, TypeVar

HALF_LIFE = 20.0  # seconds in which what an address has cost halves
# Seconds of work that an address may cost without being slowed down: more than a photograph of 12
# megapixels every ten seconds, at 0.2 s each.
FREE = 1.0
RECENT = 1.0  # seconds for which an address still counts as served
MOST_ADDRESSES = 4096
LONGEST_ADDRESS = 64  # characters
REFUSED = 0.25  # seconds that a refused request counts as, many times what it takes


class Costs:
    """Seconds of work for each address. May be used by several threads.

    Args:
        clock: callable. Returns the time in seconds. Defaults to `time.monotonic`.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._costs: OrderedDict[str, tuple[float, float]] = OrderedDict()  # and when they were
        self._latest: OrderedDict[str, float] = OrderedDict()  # the last two that were served
        self._lock = threading.Lock()
        self.served: Counter[str] = Counter()  # requests of each address, at present

    @contextmanager
    def serving(self, address: str) -> Iterator[None]:
        """Counts a request as one that is served."""
        with self._lock:
            self.served[address] += 1
        try:
            yield
        finally:
            with self._lock:
                self.served[address] -= 1
                self.served += Counter()  # forgets addresses without requests
                self._latest[address] = self._clock()
                self._latest.move_to_end(address)
                if len(self._latest) > 2:
                    self._latest.popitem(last=False)

    def add(self, address: str, seconds: float) -> None:
        """Notes work for an address."""
        with self._lock:
            self._costs[address] = self._of(address) + seconds, self._clock()
            self._costs.move_to_end(address)
            if len(self._costs) > MOST_ADDRESSES:
                self._costs.popitem(last=False)

    def is_alone(self, address: str) -> bool:
        """Returns whether no other address is served."""
        with self._lock:
            since = self._clock() - RECENT
            recent = (each for each, when in self._latest.items() if when >= since)
            return all(each == address for each in chain(self.served, recent))

    def excess(self, address: str) -> float:
        """Returns the seconds beyond those that are free; 0 if no other address is served."""
        if self.is_alone(address):
            return 0.0
        with self._lock:
            return max(0.0, self._of(address) - FREE)

    def wait(self, address: str) -> int:
        """Returns the whole seconds until the cost of an address has decayed to what is free."""
        with self._lock:
            return max(1, math.ceil(HALF_LIFE * math.log2(max(1.0, self._of(address) / FREE))))

    def _of(self, address: str) -> float:
        seconds, when = self._costs.get(address, (0.0, 0.0))
        return seconds * 0.5 ** ((self._clock() - when) / HALF_LIFE)


class Waiting(Protocol):
    """Somebody in a `Line`."""

    @property
    def address(self) -> str:
        """As returned by `address_of`."""


Entry = TypeVar("Entry", bound=Waiting)


class Line(Generic[Entry]):
    """Those who wait: first whose address has the least excess, then who came first.

    Args:
        costs: Costs.
        most: int. How many may wait.
        most_of_one: int or None. How many of one address may wait. Defaults to None: `most`.
    """

    def __init__(self, costs: Costs, most: int, most_of_one: int | None = None) -> None:
        self._costs = costs
        self._most, self._most_of_one = most, most_of_one or most
        self._entries: list[Entry] = []  # in the order of arrival

    def __len__(self) -> int:
        return len(self._entries)

    def join(self, entry: Entry) -> Entry | None:
        """Adds an entry; returns the one that has to leave, maybe itself, if there are too many."""
        self._entries.append(entry)
        own = [each for each in self._entries if each.address == entry.address]
        if len(own) > self._most_of_one:
            leaving = entry
        elif len(self._entries) > self._most:
            # Of those with the same excess, the last.
            leaving = max(reversed(self._entries), key=self._excess)
        else:
            return None
        self._entries.remove(leaving)
        return leaving

    def leave(self, entry: Entry) -> None:
        """Removes an entry if it is still there."""
        if entry in self._entries:
            self._entries.remove(entry)

    def first(self) -> Entry:
        """Returns the next entry, which stays in line until it leaves."""
        return min(self._entries, key=self._excess)

    def _excess(self, entry: Entry) -> float:
        return self._costs.excess(entry.address)


def address_of(host: str) -> str:
    """Returns what stands for a visitor: an IPv4 address, or the first 64 bits of an IPv6 address.

    Anyone with one IPv6 address usually has 2^64 of them.
    """
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host[:LONGEST_ADDRESS]  # what a proxy says
    if address.version == 4:
        return str(address)
    if mapped := address.ipv4_mapped:
        return str(mapped)
    return str(ipaddress.ip_network((int(address), 64), strict=False))
