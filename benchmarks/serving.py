"""A server in a process of its own, for as long as a block lasts."""

from __future__ import annotations

import os
import socket
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Server", "serving"]


@dataclass(frozen=True)
class Server:
    """Where it answers, ``http://localhost:PORT``, and its process."""

    address: str
    pid: int


@contextmanager
def serving(command: Callable[[int], Sequence[str]], log: Path, **environment: str) -> Iterator[Server]:
    """What ``command``, given a free port, starts; only this machine can reach it. Ready when /health answers."""
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        port = probe.getsockname()[1]
    variables = {"HF_HUB_OFFLINE": "1"} | environment | os.environ
    with log.open("w") as file:
        process = subprocess.Popen(command(port), env=variables, stdout=file, stderr=file)
        try:
            _wait_for(f"http://localhost:{port}/health", process, log)
            yield Server(f"http://localhost:{port}", process.pid)
        finally:
            process.terminate()
            process.wait(60)


def _wait_for(url: str, process: subprocess.Popen[bytes], log: Path, seconds: int = 600) -> None:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if process.poll() is not None:
            break
        try:
            urllib.request.urlopen(url, timeout=2).close()
        except OSError:
            time.sleep(1)
        else:
            return
    raise SystemExit(f"the server did not start:\n{log.read_text()[-4000:]}")
