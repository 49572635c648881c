"""The drill's command line."""

from __future__ import annotations

import argparse
import json
import platform
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, fields
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

from .. import __version__
from .._process.extras import MissingExtra
from .client import PEER, Refused
from .client.exported import require
from .client.rehearsed import check
from .plan import QUICK, QUICK_LIFETIME, SCENARIOS, Plan, scenario
from .report import RunInfo, render
from .run import Outcome, run
from .terminal import Progress, console, introduce, show
from .wording import summary

__all__ = ["exit_status", "main"]

_REPORT = "drill-report.html"
_SHORT: dict[str, Any] = {"healthy": 3.0, "outage": 12.0, "recovery": 6.0, "token_lifetime": QUICK_LIFETIME}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the drill; see `resilient_auth.drill.main`."""
    given = list(sys.argv[1:] if argv is None else argv)
    parser = _parser()
    try:
        options = parser.parse_args(given)
        plan = _plan(options)
        _check_files(options.report, options.json)
        _check_telemetry(options.telemetry)
        if options.app is not None:
            check(options.app)
    except (ValueError, MissingExtra) as error:
        print(f"{parser.prog}: {error}", file=sys.stderr)
        return 2
    except SystemExit as end:  # argparse ends by this, after --help as well
        return int(end.code or 0)
    screen = console()
    introduce(screen, plan)
    started = time.time()
    try:
        with Progress(screen, plan) as progress:
            outcomes = run(plan, progress.watch)
    except Refused as refused:
        print(f"{parser.prog}: --app: {refused}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted: no verdict", file=sys.stderr)
        return 130
    about = RunInfo(
        command=" ".join(("resilient-auth drill", *given)),
        started=started,
        took=time.time() - started,
        versions=_versions(),
        plan=plan,
    )
    show(screen, outcomes)
    if options.report is not None:
        Path(options.report).write_text(render(outcomes, about), encoding="utf-8")
        screen.print(f"Report: {options.report}")
    if options.json is not None:
        Path(options.json).write_text(json.dumps(_as_json(outcomes, about), indent=2) + "\n", encoding="utf-8")
    screen.print(f"[dim]{about.took:.0f} s[/]")
    return exit_status(outcomes)


def exit_status(outcomes: Sequence[Outcome]) -> int:
    """Return 0 where the SDK served every request with a valid token in hand under every fault, else 1."""
    return 0 if outcomes and all(outcome.sdk.flawless for outcome in outcomes) else 1


def _plan(options: argparse.Namespace) -> Plan:
    names = options.fault or (QUICK if options.quick else [each.name for each in SCENARIOS])
    chosen: dict[str, Any] = {"scenarios": tuple(dict.fromkeys(scenario(name) for name in names))}
    if options.quick:
        chosen |= _SHORT
    given = {field.name: getattr(options, field.name, None) for field in fields(Plan)}
    return Plan(**chosen | {name: value for name, value in given.items() if value is not None})


def _check_files(*names: str | None) -> None:
    # Before the drill and not after it, when there would be something to lose.
    for file in (Path(name) for name in names if name is not None):
        if not file.parent.is_dir() or file.is_dir():
            raise ValueError(f"can't write {file}: name a file in a folder that exists")
        try:
            # In its place nothing is made yet: another drill may be about to write there.
            with file.open("ab") if file.exists() else TemporaryFile(dir=file.parent):
                pass
        except OSError as error:
            raise ValueError(f"can't write {file}: {error.strerror}; name another place, or none") from None


def _check_telemetry(folder: str | None) -> None:
    if folder is None:
        return
    require()
    if not Path(folder).is_dir():
        raise ValueError(f"--telemetry: there is no folder {folder}: make it first")


def _versions() -> dict[str, str]:
    return {
        "resilient-auth": __version__,
        "msal": version("msal"),
        "httpx": version("httpx"),
        "Python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
    }


def _as_json(outcomes: Sequence[Outcome], about: RunInfo) -> dict[str, Any]:
    plan = {k: v for k, v in asdict(about.plan).items() if k != "scenarios"}
    return {
        "command": about.command,
        "started": about.started,
        "took": about.took,
        "versions": about.versions,
        "clock": "real time",
        "plan": plan,
        "summary": summary(outcomes),
        "passed": exit_status(outcomes) == 0,
        "faults": [
            {
                "name": outcome.scenario.name,
                "title": outcome.scenario.title,
                PEER: asdict(outcome.peer),
                outcome.sdk.client: asdict(outcome.sdk) | {"flawless": outcome.sdk.flawless},
            }
            for outcome in outcomes
        ],
    }


def _parser() -> argparse.ArgumentParser:
    defaults = Plan()
    parser = argparse.ArgumentParser(
        prog="resilient-auth drill",
        description="Break an identity provider on loopback in every way that providers break, and see which client "
        "keeps the application running: plain MSAL or resilient-auth.",
        epilog=f"Faults: {', '.join(each.name for each in SCENARIOS)}. Exit status 1 when resilient-auth "
        "failed a request while it held a valid token.",
    )
    parser.add_argument("--quick", action="store_true", help=f"a short run for CI: {', '.join(QUICK)}")
    parser.add_argument("--fault", action="append", metavar="NAME", help="drill this fault alone; repeatable")
    parser.add_argument(
        "--app",
        metavar="MODULE:CALLABLE",
        help="drill your application: the callable is given the provider, and returns what makes one request",
    )
    parser.add_argument("--report", default=_REPORT, metavar="PATH", help="where the report goes (%(default)s)")
    parser.add_argument("--no-report", dest="report", action="store_const", const=None, help="write no report")
    parser.add_argument("--json", metavar="PATH", help="write the findings as JSON too")
    parser.add_argument(
        "--telemetry",
        metavar="FOLDER",
        help="write what resilient-auth tells Prometheus as each phase ends, and its OpenTelemetry spans",
    )
    numbers = (
        ("threads", int, "N", "threads in each client"),
        ("rate", float, "N", "requests a second in each client, all threads together"),
        ("outage", float, "SECONDS", "length of the outage"),
        ("recovery", float, "SECONDS", "how long to wait for fresh tokens afterwards, at most"),
        ("token_lifetime", float, "SECONDS", "life of the tokens"),
        ("refresh_in", float, "SECONDS", "when the provider wants them refreshed"),
        ("msal_timeout", float, "SECONDS", "plain MSAL's time-out; 0 for none, as MSAL is by default"),
        ("parallel", int, "N", "faults drilled at the same time"),
    )
    for name, kind, unit, text in numbers:
        flags = [f"--{name.replace('_', '-')}", *(["--duration"] if name == "outage" else [])]
        default = getattr(defaults, name)
        parser.add_argument(*flags, dest=name, type=kind, metavar=unit, help=f"{text} ({default:g})")
    return parser
