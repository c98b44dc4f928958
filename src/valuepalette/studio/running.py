"""From a source to a page in a browser."""

from __future__ import annotations

import socket
import webbrowser
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from threading import Thread

__all__ = ["bound", "check_installed", "run"]


def check_installed() -> None:
    """ModuleNotFoundError with the command where a package that the studio needs is missing."""
    for package in ("fastapi", "uvicorn"):
        if find_spec(package) is None:
            raise ModuleNotFoundError(
                f'the studio needs {package}: pip install "valuepalette[studio]"', name=package
            )


def run(
    source: Path | None = None,
    *,
    port: int = 0,
    browser: bool = True,
    say: Callable[[str], object] = print,
) -> None:
    """Serves the studio on 127.0.0.1 until it is stopped, says where, and opens it in the browser.

    port  0 takes any that is free
    """
    check_installed()
    import uvicorn

    from valuepalette.studio.app import create_app
    from valuepalette.studio.guarding import names_of
    from valuepalette.studio.opening import open_source
    from valuepalette.studio.working import Lanes

    lanes = Lanes(open_source(source))
    with bound(port) as door:
        port = door.getsockname()[1]
        say(f"the studio is at http://127.0.0.1:{port}/ (Ctrl+C stops it)")
        if browser:
            Thread(target=webbrowser.open, args=(f"http://127.0.0.1:{port}/",), daemon=True).start()
        app = create_app(lanes, names_of(port))
        settings = uvicorn.Config(app, log_level="warning", ws="none", server_header=False, access_log=False)
        uvicorn.Server(settings).run(sockets=[door])


@contextmanager
def bound(port: int) -> Iterator[socket.socket]:
    """A door of this machine that nobody else can knock at; 0 takes any that is free."""
    # Of a socket that says TCP, asyncio sends what it is given at once; else each reply waits 40 ms for its last part.
    with socket.socket(proto=socket.IPPROTO_TCP) as door:
        door.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            door.bind(("127.0.0.1", port))
        except OSError as error:
            raise OSError(f"port {port} of this machine cannot be had: {error.strerror}") from None
        except OverflowError:
            raise ValueError(f"port must lie between 0 and 65535, got {port}") from None
        door.listen()
        yield door
