"""Where requests from addresses that have cost much wait for their turn."""

import asyncio
from dataclasses import dataclass

from keras_convnext.demo.costs import Costs, Line

SHARE = 0.05  # of a core, for all requests that wait here
MOST_WAITING = 256  # requests
MOST_OF_ONE = 32  # waiting requests of one address
LONGEST = 30  # seconds that a request may wait


class BusyError(Exception):
    """A request has to be sent again later."""


@dataclass(eq=False)
class Request:
    """A request that waits.

    Args:
        address: str.
        seconds: float. Work that it is expected to cause before anything else is known about it.
        turn: future. Done if its turn has come.
    """

    address: str
    seconds: float
    turn: "asyncio.Future[None]"


class Gate:
    """Lets requests in: at once unless their address has cost much.

    Args:
        costs: Costs.
    """

    def __init__(self, costs: Costs) -> None:
        self._costs = costs
        self._line: Line[Request] = Line(costs, MOST_WAITING, MOST_OF_ONE)
        self._is_open = True  # no request was let in too recently

    async def enter(self, address: str, seconds: float) -> None:
        """Waits for the turn of a request.

        Args:
            address: str.
            seconds: float. As in `Request`; is added to the costs of the address.

        Raises:
            BusyError: If too many are waiting, or for too long.
        """
        if self._costs.excess(address):
            await self._wait(address, seconds)
        self._costs.add(address, seconds)

    async def _wait(self, address: str, seconds: float) -> None:
        turn = asyncio.get_running_loop().create_future()
        request = Request(address, seconds, turn)
        leaving = self._line.join(request)
        if leaving and not leaving.turn.done():
            leaving.turn.set_exception(BusyError())
        if self._is_open:
            self._open()
        try:
            await asyncio.wait_for(turn, LONGEST)
        except asyncio.TimeoutError as error:
            raise BusyError from error
        finally:
            self._line.leave(request)

    def _open(self) -> None:
        """Lets the next request in, and others after a while."""
        self._is_open = not len(self._line)
        if self._is_open:
            return
        request = self._line.first()
        self._line.leave(request)
        if not request.turn.done():
            request.turn.set_result(None)
        # Those who do not need to wait any longer are first in line.
        seconds = request.seconds / SHARE if self._costs.excess(request.address) else 0
        asyncio.get_running_loop().call_later(seconds, self._open)
