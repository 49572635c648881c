"""The emulator as a program."""

from __future__ import annotations

import argparse
import signal
import sys
import threading
from collections.abc import Sequence
from types import FrameType

from .emulator import Emulator


def serve(argv: Sequence[str] | None = None) -> int:
    """Run the emulator until SIGINT or SIGTERM.

    Args:
        argv: The options, without the program's name; None takes those of the process.

    Returns:
        The exit status.
    """
    options = _parser().parse_args(argv)
    stopped = threading.Event()

    def stop(signum: int, frame: FrameType | None) -> None:
        stopped.set()

    previous = {one: signal.signal(one, stop) for one in (signal.SIGINT, signal.SIGTERM)}
    try:
        with _emulator(options) as emulator:
            print(_greeting(emulator), flush=True)  # noqa: T201
            stopped.wait()
    except (OSError, ValueError) as error:
        print(f"the emulator can't start: {error}", file=sys.stderr)  # noqa: T201
        return 1
    finally:
        for one, handler in previous.items():
            signal.signal(one, handler)
    return 0


def _emulator(options: argparse.Namespace) -> Emulator:
    return Emulator(
        options.token_lifetime,
        options.refresh_in,
        port=options.port,
        api_port=options.api_port,
        metadata_port=options.metadata_port,
        proxy_port=options.proxy_port,
        control_port=options.control_port,
    )


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
            "Press Ctrl+C to stop.",
        )
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="resilient-auth emulator", description="Run an identity provider on loopback that fails on command."
    )
    parser.add_argument("--token-lifetime", type=float, default=3600.0, metavar="SECONDS")
    parser.add_argument("--refresh-in", type=float, default=None, metavar="SECONDS")
    for name in ("port", "api-port", "metadata-port", "proxy-port", "control-port"):
        parser.add_argument(f"--{name}", type=int, default=0, help="0 takes a free one")
    return parser
