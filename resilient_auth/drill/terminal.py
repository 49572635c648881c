"""The drill in the terminal: progress while it runs, a table at its end."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from types import TracebackType
from typing import Final, Self

from rich import box
from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from .client import SDK
from .judge import Finding
from .plan import Plan
from .run import Outcome
from .scene import Phase, Scene
from .wording import FRESH, calls, clock_note, headline, longest, name, percent, recovery, shortfalls, summary, wait

__all__ = ["Progress", "introduce", "show"]

_FRAME: Final = 0.25
_LINE: Final = 5.0
#: Columns that a table gets where there is no terminal to tell.
_WIDTH: Final = 100
_STYLES: Final = {
    Phase.STARTING: "dim",
    Phase.HEALTHY: "green",
    Phase.DARK: "bold red",
    Phase.RECOVERY: "yellow",
    Phase.ENDING: "dim",
    Phase.OVER: "dim",
}


class _Screen(Console):
    """One whose owner sees to it that nobody reads."""

    def on_broken_pipe(self) -> None:
        """Leave it to the command, as everything else that is printed."""
        raise


def console() -> Console:
    """Make a console on standard output."""
    made = _Screen(highlight=False)
    return made if made.is_terminal else _Screen(highlight=False, width=_WIDTH)


class Progress:
    """Shows what is under way: a live table in a terminal, a line every few seconds elsewhere."""

    def __init__(self, screen: Console, plan: Plan) -> None:
        self._screen = screen
        self._most = plan.seconds
        self._since = time.monotonic()
        self._next = 0.0
        # Refreshed by `watch` alone: a thread that draws would disturb the measurement at odd moments.
        self._live = Live(console=screen, auto_refresh=False, transient=True) if screen.is_terminal else None

    def __enter__(self) -> Self:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()

    def watch(self, scenes: Sequence[Scene]) -> None:
        """Show how the scenes stand, unless they were shown a moment ago."""
        passed = time.monotonic() - self._since
        if passed < self._next:
            return
        self._next = passed + (_LINE if self._live is None else _FRAME)
        left = f"at most {max(0.0, self._most - passed):.0f} s left"
        if self._live is None:
            self._screen.print(f"{passed:4.0f} s, {left}  {_in_words(scenes)}")
        else:
            self._live.update(_picture(scenes, f"{passed:.0f} s, {left}"), refresh=True)


def introduce(screen: Console, plan: Plan) -> None:
    """Say what is about to happen, and on what clock."""
    who = Text(f"plain MSAL and {plan.app or SDK}, each in a process of its own per fault.")
    screen.print(Text.assemble(("The outage drill", "bold"), ": ", who))
    for paragraph in clock_note(plan):
        screen.print(Text(paragraph, style="dim"))
    screen.print()


def show(screen: Console, outcomes: Sequence[Outcome]) -> None:
    """Print the verdict and where the SDK, or the application in its place, fell short; then the table."""
    good = all(outcome.sdk.flawless for outcome in outcomes)
    screen.print(Text(headline(outcomes), style="bold green" if good else "bold red"))
    screen.print(Text(f"While the provider was dark, {summary(outcomes)}."))
    for line in shortfalls(outcomes):
        screen.print(Text(line, style="red"))
    screen.print(_table(outcomes))
    screen.print(
        Text(
            "Served: with a token that the provider's ledger calls valid at that moment. Waits, and calls that reached "
            "the provider, are those of the dark. Fresh: time from its end to the first token issued since. " + FRESH,
            style="dim",
        )
    )


def _in_words(scenes: Sequence[Scene]) -> str:
    phases = Counter(scene.phase for scene in scenes)
    standing = ", ".join(f"{phases[phase]} {phase.value}" for phase in Phase if phases[phase])
    told = []
    for sides in zip(*(scene.sides for scene in scenes), strict=True):
        served = sum(side.process.served for side in sides)
        asked = served + sum(side.process.failed for side in sides)
        told.append(f"{name(sides[0].client)} {served} of {asked}")
    return f"{standing}; tokens got: {', '.join(told)}"


def _picture(scenes: Sequence[Scene], title: str) -> Table:
    table = Table(box=box.SIMPLE_HEAD, title=title, title_justify="left", title_style="dim", padding=(0, 1))
    table.add_column("Fault", no_wrap=True)
    table.add_column("Provider", no_wrap=True, min_width=8)
    for side in scenes[0].sides:
        table.add_column(f"{name(side.client)}: got", justify="right", no_wrap=True)
        table.add_column("failed", justify="right", no_wrap=True)
    for scene in scenes:
        row: list[Text] = [Text(scene.scenario.title), Text(scene.phase.value, style=_STYLES[scene.phase])]
        for side in scene.sides:
            failed = side.process.failed
            row += [Text(str(side.process.served)), Text(str(failed), style="bold red" if failed else "dim")]
        table.add_row(*row)
    return table


def _table(outcomes: Sequence[Outcome]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 0, 0, 1), pad_edge=False)
    table.add_column("Fault")
    table.add_column("Client", no_wrap=True)
    for title in ("Asked", "Served", "p50", "p99", "max", "Calls", "Fresh"):
        table.add_column(title, justify="right", no_wrap=True)
    for outcome in outcomes:
        for finding in (outcome.peer, outcome.sdk):
            first = finding is outcome.peer
            title = outcome.scenario.title if first else ""
            table.add_row(title, name(finding.client), *_cells(finding), end_section=not first)
    return table


def _cells(finding: Finding) -> tuple[str | Text, ...]:
    whole = finding.served == finding.requests > 0
    return (
        f"{finding.requests:,}",
        Text(percent(finding.served, finding.requests), style="bold green" if whole else "bold red"),
        wait(finding.median),
        wait(finding.p99),
        longest(finding),
        calls(finding),
        recovery(finding),
    )
