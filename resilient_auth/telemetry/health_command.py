"""Ask a running application over HTTP how it stands, and how long it can live on what it holds."""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any, Final

import httpx

from .._policy.checks import require_number
from .._wire.environment import Authorities
from ..errors import ConfigurationError, printable

__all__ = ["forecast", "main"]

_LARGEST: Final = 1024 * 1024
#: Exit statuses, by verdict; what can't be asked, or says something else, is 3 too.
_STATUS: Final[Mapping[str, int]] = {"ok": 0, "degraded": 0, "at risk": 1, "down": 3}

_HEALTH: Final = {
    "description": "Ask an application in which mount_health is mounted how it stands.",
    "epilog": "Exit status: 0 ok or degraded, 1 at risk, 3 down or not to be asked, 2 bad usage.",
}
_FORECAST: Final = {
    "description": "Ask an application in which mount_health(details=True) is mounted what goes dark when, if its "
    "identity provider died now, and what would lengthen that most.",
    "epilog": "Exit status: 0 told, 3 not to be asked, 2 bad usage.",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Print the verdict and its reasons, and return the exit status.

    Args:
        argv: The options, without the program's name; None takes those of the process.
    """
    told = _told("health", argv, _HEALTH, "verdict")
    if told is None:
        return 3
    return _STATUS.get(str(told["verdict"]), 3)


def forecast(argv: Sequence[str] | None = None) -> int:
    """Print what goes dark when, if the providers died now, and return the exit status.

    Args:
        argv: The options, without the program's name; None takes those of the process.
    """
    return 3 if _told("forecast", argv, _FORECAST, "report") is None else 0


def _told(command: str, argv: Sequence[str] | None, described: Mapping[str, str], wanted: str) -> dict[str, Any] | None:
    """Ask, and print the answer or why there is none."""
    options = _parser(command, described).parse_args(argv)
    url = options.url if command == "health" else f"{options.url.rstrip('/').removesuffix('/forecast')}/forecast"
    try:
        told = _ask(url, options.timeout, wanted)
    except httpx.NetworkError as error:
        # Without the number of the system's, or of the module's, that it begins with.
        reason = str(error).rpartition("] ")[2] or type(error).__name__
        print(f"resilient-auth {command}: nothing can be reached there: {printable(reason)}", file=sys.stderr)
        return None
    except (httpx.HTTPError, httpx.InvalidURL, ValueError) as error:
        print(f"resilient-auth {command}: {printable(str(error) or type(error).__name__)}", file=sys.stderr)
        return None
    if options.json:
        print(json.dumps(told, indent=2))
        return told
    reasons = told.get("reasons")
    lines = [str(told[wanted]).upper(), *(f"  {line}" for line in (reasons if isinstance(reasons, list) else ()))]
    for line in lines if command == "health" else str(told[wanted]).splitlines():
        print(printable(line))
    return told


def _ask(url: str, seconds: float, wanted: str) -> dict[str, Any]:
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
    if not isinstance(told, dict) or wanted not in told:
        raise ValueError(
            f"what answers there (status {response.status_code}) says nothing of health: give the URL at which "
            "mount_health is mounted, such as http://localhost:8000/health"
            + (", with details=True" if wanted == "report" else "")
        )
    return told


def _seconds(text: str) -> float:
    """Return a number of seconds that can be waited for; argparse tells what isn't one as bad usage."""
    try:
        seconds = float(text)
        require_number("it", seconds, low=0.1, high=3600.0)
    except ValueError as error:  # a ConfigurationError is one
        told = str(error) if isinstance(error, ConfigurationError) else f"it must be a number, not {text!r}"
        raise argparse.ArgumentTypeError(told) from None
    return seconds


def _parser(command: str, described: Mapping[str, str]) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog=f"resilient-auth {command}", **described)  # type: ignore[arg-type]
    parser.add_argument("url", metavar="URL", help="such as http://localhost:8000/health")
    parser.add_argument("--timeout", type=_seconds, default=5.0, metavar="SECONDS", help="at most (%(default)g)")
    parser.add_argument("--json", action="store_true", help="print what it answers")
    return parser
