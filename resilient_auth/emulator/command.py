"""The emulator as a program."""

from __future__ import annotations

import argparse
import signal
import sys
import threading
from collections.abc import Sequence
from types import FrameType
from typing import Final

from .emulator import Emulator
from .endpoints import EVERYTHING
from .faults import Fault
from .remote import announced, command, the_one_that_runs

_PORTS: Final = ("port", "api_port", "metadata_port", "proxy_port", "control_port")


def serve(argv: Sequence[str] | None = None) -> int:
    """Run the emulator until SIGINT or SIGTERM; or fail, or heal, one that runs.

    Args:
        argv: The options, without the program's name; None takes those of the process.

    Returns:
        The exit status.
    """
    options = _parser().parse_args(argv)
    return _serve(options) if options.command is None else _command(options)


def _command(options: argparse.Namespace) -> int:
    try:
        if options.command == "fail":
            Fault.parse(options.fault)  # which names those that there are
        control = options.control or the_one_that_runs()
        if options.command == "heal":
            command(control, "heal", {} if options.endpoint == EVERYTHING else {"endpoint": options.endpoint})
        else:
            limits = {"seconds": options.seconds, "count": options.count}
            command(
                control,
                "fail",
                {"fault": options.fault, "endpoint": options.endpoint}
                | {name: value for name, value in limits.items() if value is not None},
            )
    except (OSError, ValueError) as error:
        print(f"resilient-auth emulator {options.command}: {error}", file=sys.stderr)
        return 1
    where = "everything" if options.endpoint == EVERYTHING else options.endpoint
    lasts = "" if options.command == "heal" or options.seconds is None else f" for {options.seconds:g} s"
    print(f"healed: {where}" if options.command == "heal" else f"failing: {where}, by {options.fault}{lasts}")
    return 0


def _serve(options: argparse.Namespace) -> int:
    stopped = threading.Event()

    def stop(signum: int, frame: FrameType | None) -> None:
        stopped.set()

    previous = {one: signal.signal(one, stop) for one in (signal.SIGINT, signal.SIGTERM)}
    try:
        ports = {name: getattr(options, name) for name in _PORTS}
        with Emulator(options.token_lifetime, options.refresh_in, **ports) as emulator, announced(emulator.control_url):
            print(_greeting(emulator), flush=True)
            stopped.wait()
    except BrokenPipeError:  # nobody reads where it is
        raise
    except (OSError, ValueError) as error:
        print(f"the emulator can't start: {getattr(error, 'strerror', None) or error}", file=sys.stderr)
        return 1
    finally:
        for one, handler in previous.items():
            signal.signal(one, handler)
    return 0


def _greeting(emulator: Emulator) -> str:
    return "\n".join(
        (
            f"identity provider  {emulator.url}  (an authority: {emulator.authority('contoso')})",
            f"protected API      {emulator.api_url}/api/",
            f"managed identity   {emulator.metadata_url}",
            f"proxy              {emulator.proxy_url}",
            f"control            {emulator.control_url}",
            f"CA certificate     {emulator.ca_file}",
            "users              ann@contoso.com, bob@contoso.com (password: pw)",
            "fail and heal it   resilient-auth emulator fail 503 --for 60; resilient-auth emulator heal",
            "Press Ctrl+C to stop.",
        )
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="resilient-auth emulator", description="Run an identity provider on loopback that fails on command."
    )
    parser.add_argument("--token-lifetime", type=float, default=3600.0, metavar="SECONDS")
    parser.add_argument("--refresh-in", type=float, default=None, metavar="SECONDS")
    for name in _PORTS:
        parser.add_argument(f"--{name.replace('_', '-')}", type=int, default=0, help="0 takes a free one")
    commands = parser.add_subparsers(title="for one that runs", dest="command", metavar="[fail | heal]")
    fail = commands.add_parser("fail", help="break it", epilog=f"Faults: {', '.join(Fault.all())}, or a status code.")
    fail.add_argument("fault", help="such as 503, 429:30 or black_hole")
    fail.add_argument("--for", dest="seconds", type=float, metavar="SECONDS", help="end by itself (until healed)")
    fail.add_argument("--count", type=int, metavar="N", help="end after so many requests")
    for one in (fail, commands.add_parser("heal", help="end its faults")):
        one.add_argument("--endpoint", default=EVERYTHING, metavar="NAME", help="such as token (all of the provider's)")
        one.add_argument("--control", metavar="URL", help="its control port, where several run")
    return parser
