"""The command `resilient-auth`."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from . import __version__
from ._process.extras import MissingExtra

__all__ = ["main"]

_USAGE = """\
usage: resilient-auth <command> [options]

  drill      break an identity provider on this machine in every way, and see who keeps an application running
  emulator   run that identity provider for other programs

resilient-auth <command> --help tells a command's options.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit status."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    command = arguments.pop(0) if arguments else "--help"
    if command in ("-h", "--help"):
        print(_USAGE, end="")
        return 0
    if command in ("-V", "--version"):
        print(f"resilient-auth {__version__}")
        return 0
    try:
        if command == "drill":
            from .drill import main as drill

            return drill(arguments)
        if command == "emulator":
            from .emulator import serve

            return serve(arguments)
    except MissingExtra as missing:
        print(f"resilient-auth {command}: {missing}", file=sys.stderr)
        return 2
    print(f"resilient-auth: there is no command {command!r}\n\n{_USAGE}", end="", file=sys.stderr)
    return 2
