"""Runs the command `demo` in a separate process for `test_browser.py`, and watches its network.

Usage: python serve_demo.py [options of the command]. Prints connections to other machines to
stderr.
"""

import sys

LOOPBACK = {None, "", "localhost", "127.0.0.1", "::1", b"localhost", b"127.0.0.1"}


def watch(event, arguments):
    host = None
    if event == "socket.connect" and isinstance(arguments[1], tuple):
        host = arguments[1][0]
    elif event == "socket.getaddrinfo":
        host = arguments[0]
    if host not in LOOPBACK:
        print(f"Reached for {host}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.addaudithook(watch)
    import typer

    from keras_convnext.cli.demonstration import demo

    typer.run(demo)
