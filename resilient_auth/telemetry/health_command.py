"""Ask a running application how it stands, over HTTP."""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any, Final

import httpx

from .._wire.environment import Authorities
from ..errors import printable

__all__ = ["main"]

_LARGEST: Final = 1024 * 1024
#: Exit statuses, by verdict; what can't be asked, or says something else, is 3 too.
_STATUS: Final[Mapping[str, int]] = {"ok": 0, "degraded": 0, "at risk": 1, "down": 3}


def main(argv: Sequence[str] | None = None) -> int:
    """Print the verdict and its reasons, and return the exit status.

    Args:
        argv: The options, without the program's name; None takes those of the process.
    """
    options = _parser().parse_args(argv)
    try:
        told = _ask(options.url, options.timeout)
    except (httpx.HTTPError, httpx.InvalidURL, ValueError) as error:
        print(f"resilient-auth health: {printable(str(error) or type(error).__name__)}", file=sys.stderr)
        return 3
    if options.json:
        print(json.dumps(told, indent=2))
    else:
        print(printable(str(told["verdict"])).upper())
        for reason in told.get("reasons") or ():
            print(f"  {printable(str(reason))}")
    return _STATUS.get(str(told["verdict"]), 3)


def _ask(url: str, seconds: float) -> dict[str, Any]:
    """Return what an application says of itself.

    Raises:
        httpx.HTTPError: It can't be asked.
        ConfigurationError: The environment's bundle of authorities can't be read.
        ValueError: The answer isn't one of `mount_health`, is too large, or takes too long.
    """
    ends, content = time.monotonic() + seconds, b""
    trust = Authorities(True).context()
    with httpx.Client(timeout=seconds, verify=trust) as client, client.stream("GET", url) as response:
        for part in response.iter_bytes():
            content += part
            if len(content) > _LARGEST or time.monotonic() > ends:
                raise ValueError("the answer is too large, or takes too long")
    told = None
    with contextlib.suppress(ValueError, RecursionError):
        told = json.loads(content)
    if not isinstance(told, dict) or "verdict" not in told:
        raise ValueError(
            f"what answers there (status {response.status_code}) says nothing of health: give the URL at which "
            "mount_health is mounted, such as http://localhost:8000/health"
        )
    return told


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="resilient-auth health",
        description="Ask an application in which mount_health is mounted how it stands.",
        epilog="Exit status: 0 ok or degraded, 1 at risk, 3 down or not to be asked, 2 bad usage.",
    )
    parser.add_argument("url", metavar="URL", help="such as http://localhost:8000/health")
    parser.add_argument("--timeout", type=float, default=5.0, metavar="SECONDS", help="at most (%(default)g)")
    parser.add_argument("--json", action="store_true", help="print what it answers")
    return parser
