"""Command an emulator that runs as a program of this user, from another program.

Each one that runs leaves its control port's address in a directory that is this user's alone.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import stat
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from .wire.posting import post

__all__ = ["announced", "command", "the_one_that_runs"]

_LOOPBACK: Final = ("127.0.0.1", "localhost")
_SECONDS: Final = 10.0
_LARGEST: Final = 1024 * 1024


@contextlib.contextmanager
def announced(control_url: str) -> Iterator[None]:
    """Let other programs of this user find the emulator of this process, while it runs."""
    place: Path | None = None
    # Whoever can't be found can still be commanded by the address.
    with contextlib.suppress(OSError, ValueError):
        place = _directory() / str(os.getpid())
        place.write_text(control_url, encoding="ascii")
    try:
        yield
    finally:
        if place is not None:
            place.unlink(missing_ok=True)


def the_one_that_runs() -> str:
    """Return the control port's address of the one emulator that runs.

    Raises:
        ValueError: None does, or several do.
    """
    found = []
    with contextlib.suppress(OSError):
        for place in sorted(_directory().iterdir()):
            if place.name.isdigit() and _lives(int(place.name)):
                found.append(place.read_text(encoding="ascii").strip())
            else:
                place.unlink(missing_ok=True)  # it was killed
    if not found:
        raise ValueError("no emulator of this user runs: start one by resilient-auth emulator, or give --control URL")
    if len(found) > 1:
        raise ValueError(f"several emulators run: give --control and one of {', '.join(found)}")
    return found[0]


def command(control_url: str, name: str, body: Mapping[str, Any]) -> None:
    """Send a command.

    Raises:
        ValueError: The address isn't an emulator's, or it refuses the command.
        OSError: It can't be reached.
    """
    parts = urlsplit(control_url)
    if parts.scheme != "http" or parts.hostname not in _LOOPBACK or not parts.port:
        raise ValueError(f"{control_url!r} isn't the address of a control port: http://127.0.0.1:<port>")
    url, headers = f"http://{parts.hostname}:{parts.port}/{name}", {"Content-Type": "application/json"}
    try:
        answer = post(url, json.dumps(body), headers, _SECONDS, most=_LARGEST)
    except http.client.HTTPException as error:
        raise ValueError(f"what answers at {control_url} is no emulator ({type(error).__name__})") from None
    if answer.status != 200:
        raise ValueError(_error_in(answer.body) or f"what answers at {control_url} is no emulator ({answer.status})")


def _error_in(content: bytes) -> str:
    try:
        body = json.loads(content)
    except ValueError:
        return ""
    return str(body.get("error", "")) if isinstance(body, dict) else ""


def _directory() -> Path:
    """Return the directory, made where it is missing.

    Raises:
        ValueError: Somebody else made it.
    """
    user = os.getuid() if hasattr(os, "getuid") else 0
    place = Path(tempfile.gettempdir()) / f"resilient-auth-emulator-{user}"
    with contextlib.suppress(FileExistsError):
        place.mkdir(mode=0o700)
    status = os.lstat(place)
    if not stat.S_ISDIR(status.st_mode) or (hasattr(os, "getuid") and status.st_uid != user):
        raise ValueError(f"{place} is somebody else's: remove it")
    return place


def _lives(process: int) -> bool:
    if os.name == "nt":
        return True  # there, signal 0 is Ctrl+C
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True
