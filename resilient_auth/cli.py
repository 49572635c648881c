"""The command `resilient-auth`."""

from __future__ import annotations

import argparse
import errno
import io
import os
import select
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TextIO

from . import __version__
from ._process.extras import MissingExtra

__all__ = ["main"]

Program = Callable[[Sequence[str]], int]

#: As of a program that SIGPIPE has ended.
_NOBODY_READS = 141


@dataclass(frozen=True, slots=True)
class _Command:
    """A command, loaded when it is called: to list it needs nothing of what it needs itself."""

    help: str
    load: Callable[[], Program]


def _drill() -> Program:
    from .drill import load

    return load()


def _doctor() -> Program:
    from .telemetry.doctor.command import main as doctor

    return doctor


def _health() -> Program:
    from .telemetry.health_command import main as health

    return health


def _forecast() -> Program:
    from .telemetry.health_command import forecast

    return forecast


def _emulator() -> Program:
    from .emulator import serve

    return serve


_COMMANDS = {
    "doctor": _Command("look at this machine and an application's set-up; say what is wrong, and the fix", _doctor),
    "health": _Command("ask a running application how it stands", _health),
    "forecast": _Command("ask it how long it lives on what it holds, if its provider died now", _forecast),
    "drill": _Command(
        "break an identity provider on this machine in every way, and see who keeps an application running", _drill
    ),
    "emulator": _Command("run that identity provider for other programs; fail and heal it", _emulator),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit status."""
    if isinstance(sys.stdout, io.TextIOWrapper):  # what it has no letters for is no verdict, as standard error has it
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        status = _run(list(sys.argv[1:] if argv is None else argv))
        sys.stdout.flush()
    except BrokenPipeError:
        if not [stream for stream in (sys.stdout, sys.stderr) if _nobody_reads(stream)]:
            raise
        return _NOBODY_READS
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise
        print(f"resilient-auth: what it says can't be written: {error.strerror}", file=sys.stderr)
        return 2
    return status


def _nobody_reads(stream: TextIO) -> bool:
    """Return whether this is a pipe whose reader has gone; then nothing more is written there, at the end either."""
    try:
        number = stream.fileno()
    except (OSError, ValueError):  # something of the caller's, which isn't a pipe
        return False
    if hasattr(select, "poll"):  # else it can't be told
        poll = select.poll()
        poll.register(number, select.POLLOUT)
        if not [state for _, state in poll.poll(0) if state & select.POLLERR]:
            return False
    os.dup2(os.open(os.devnull, os.O_WRONLY), number)
    return True


def _run(given: list[str]) -> int:
    parser = _parser()
    try:
        # What follows the command is its own parser's.
        command = parser.parse_args(given[:1] or ["--help"]).command
    except SystemExit as end:  # argparse ends by this, after --help as well
        return int(end.code or 0)
    rest = given[1:]
    try:
        return _COMMANDS[command].load()(rest)
    except MissingExtra as missing:
        if {"-h", "--help"} & set(rest):
            print(f"usage: resilient-auth {command} [options]\n\n{_COMMANDS[command].help}\n\n{missing}")
            return 0
        print(f"resilient-auth {command}: {missing}", file=sys.stderr)
        return 2
    except SystemExit as end:
        return int(end.code or 0)
    except KeyboardInterrupt:
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="resilient-auth",
        description="Keep an application authenticated while its identity provider fails: look, ask, and rehearse.",
        epilog="resilient-auth <command> --help tells a command's options.",
    )
    parser.add_argument("-V", "--version", action="version", version=f"%(prog)s {__version__}")
    commands = parser.add_subparsers(title="commands", dest="command", metavar="<command>")
    for name, command in _COMMANDS.items():
        commands.add_parser(name, help=command.help, add_help=False)
    return parser
