"""The doctor's command line."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence

from ...errors import ConfigurationError
from .configuration import FLOWS, read_setup
from .examination import examine
from .finding import exit_status
from .report import as_json, lines_of, summary

__all__ = ["main"]

_OPTIONS = ("authority", "client_id", "flows", "scopes", "certificate", "store", "verify", "timeout")


def main(argv: Sequence[str] | None = None) -> int:
    """Examine, print what is found, and return the exit status.

    Args:
        argv: The options, without the program's name; None takes those of the process.
    """
    try:
        options = _parser().parse_args(argv)
    except SystemExit as end:  # argparse ends by this, after --help as well
        return int(end.code or 0)
    given = {name: getattr(options, name) for name in _OPTIONS}
    try:
        setup = read_setup(os.environ, options.config, given)
    except ConfigurationError as refusal:
        print(f"resilient-auth doctor: {refusal}", file=sys.stderr)
        return 2
    findings = []
    for finding in examine(setup):
        findings.append(finding)
        if not options.json:
            for line in lines_of(finding):
                print(line, flush=True)
    print(json.dumps(as_json(findings), indent=2) if options.json else f"\n{summary(findings)}")
    return exit_status(findings)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="resilient-auth doctor",
        description="Look at what this machine and an application's set-up do to its tokens, and say what is wrong and "
        "what mends it. It reads the environment (AZURE_TENANT_ID and so on), a file and these options.",
        epilog="Exit status: 0 healthy, 1 warnings, 3 errors, 2 bad usage. Nothing that is printed is a secret.",
    )
    parser.add_argument("--config", metavar="FILE", help="a TOML file that describes the application")
    parser.add_argument("--authority", metavar="URL", help="such as https://login.microsoftonline.com/<tenant>")
    parser.add_argument("--client-id", metavar="ID", help="the application's")
    parser.add_argument(
        "--flow", dest="flows", action="append", metavar="NAME", help=f"repeatable; one of {', '.join(FLOWS)}"
    )
    parser.add_argument("--scope", dest="scopes", action="append", metavar="SCOPE", help="repeatable")
    parser.add_argument("--certificate", metavar="FILE", help="its certificate and key, PEM or PFX")
    parser.add_argument("--store", metavar="PATH|URL", help="a store's file, or a Redis")
    parser.add_argument("--verify", metavar="FILE", help="a bundle of CA certificates")
    parser.add_argument("--timeout", type=float, metavar="SECONDS", help="for each check, at most (5)")
    parser.add_argument("--json", action="store_true", help="print the findings as JSON")
    return parser
