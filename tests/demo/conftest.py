import socket

import pytest


@pytest.fixture(scope="module")
def free_port():
    """An unused port of this machine."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
