"""A gateway in a process of its own that keeps its traffic: `python recording_gateway.py FOLDER PORT`."""

from __future__ import annotations

import sys
from pathlib import Path

import uvicorn

from gateways import gateway
from valuepalette.server.app import create_app
from valuepalette.server.running import recording


def main(folder: str, port: str) -> None:
    made = gateway(queue=1000)
    with recording(made, Path(folder), {"record": True, "part_groups": 20, "part_seconds": 0.2}):
        uvicorn.run(create_app(made), port=int(port), log_level="error", ws="none")


if __name__ == "__main__":
    main(*sys.argv[1:])
