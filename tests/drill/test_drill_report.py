"""The report opens offline, holds no secret and doesn't flatter."""

from __future__ import annotations

import re
from collections.abc import Callable
from html.parser import HTMLParser
from typing import Any

import pytest
from made_up import asked
from rich.console import Console

from resilient_auth.drill.plan import SCENARIOS, Plan
from resilient_auth.drill.report import RunInfo, render
from resilient_auth.drill.run import Outcome
from resilient_auth.drill.terminal import introduce, show
from resilient_auth.drill.wording import LONG_DRILL, clock_note, percent, recovery, summary, wait

Make = Callable[..., Outcome]


def about(command: str = "resilient-auth drill", **plan: Any) -> RunInfo:
    return RunInfo(command=command, started=1.7e9, took=60.0, versions={"msal": "1.39.0"}, plan=Plan(**plan))


class Elements(HTMLParser):
    """Collects attributes, and checks that what is opened is closed."""

    def __init__(self) -> None:
        super().__init__()
        self.attributes: list[tuple[str, str, str]] = []
        self.open: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        if tag != "meta":
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.attributes += [(tag, name, value or "") for name, value in attrs]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def read(html: str) -> Elements:
    elements = Elements()
    elements.feed(html)
    assert elements.open == []
    return elements


def test_the_report_refers_to_nothing_outside_of_itself(outcome: Make) -> None:
    """It must open on a machine without a network, and tell nobody that it was opened."""
    html = render([outcome(scenario=n) for n in range(len(SCENARIOS))], about())
    elements = read(html)
    assert not {name for _, name, _ in elements.attributes} & {"src", "href", "srcset", "data", "action", "xlink:href"}
    assert "<script" not in html
    assert "<link" not in html
    assert not re.search(r"url\(|@import|https?://|//\w+\.\w", html)


def test_the_report_shows_both_clients_under_each_fault(outcome: Make) -> None:
    """Two strips a fault, the shares, the clock and how it was run."""
    outcomes = [outcome(scenario=0), outcome(scenario=5)]
    html = render(outcomes, about())
    text = read(html).text
    assert html.count('<svg class="strip"') == 4
    for wanted in ("503, JSON", "200, []", "50.0 %", "100 %", "real time", "300 s", LONG_DRILL, "msal 1.39.0"):
        assert wanted in text


def test_the_report_holds_no_token(outcome: Make) -> None:
    """Not even the hashes that clients report."""
    html = render([outcome()], about())
    assert "sha-a" not in html
    assert "jti-a" not in html
    assert "eyJ" not in html


def test_what_was_typed_is_text_and_not_markup(outcome: Make) -> None:
    """A command line may hold anything."""
    html = render([outcome()], about('drill --report "<img src=x>"'))
    assert "<img" not in html
    assert "&lt;img" in html


def test_the_report_says_where_the_sdk_fell_short(outcome: Make) -> None:
    """A failure is the headline."""
    text = read(render([outcome(missed=1), outcome(scenario=1)], about())).text
    assert "through 1 of 2 faults only" in text
    assert "failed 1 requests with a valid token in hand (1 x MsalServiceError)" in text
    assert "99.0 %" in text


def test_the_report_can_show_a_client_that_died(outcome: Make) -> None:
    """No requests, no waits, no recovery."""
    dead = outcome(requests=(), calls=(), trouble="its process ended with status 1: ImportError")
    assert "can't be judged" in read(render([dead], about())).text


def test_the_terminal_shows_the_same_figures(outcome: Make) -> None:
    """In plain text where there is no terminal, within 80 columns."""
    screen = Console(width=80, record=True, highlight=False, file=open("/dev/null", "w"))  # noqa: SIM115
    introduce(screen, Plan())
    show(screen, [outcome(), outcome(missed=2, scenario=11)])
    text = screen.export_text()
    screen.file.close()
    assert "MSAL served 50.0 %, resilient-auth served 99.0 %" in text
    assert "Black hole" in text.replace("\n", " ") or "Black" in text
    assert "…" not in text
    assert "failed 2 requests" in text


def test_a_share_is_never_rounded_up_to_all() -> None:
    """100 % means every single one."""
    assert percent(99_999, 100_000) == "99.9 %"
    assert percent(100_000, 100_000) == "100 %"
    assert percent(0, 0) == "–"  # noqa: RUF001


def test_late_answers_show_in_the_summary(outcome: Make) -> None:
    """Being served after ten seconds is told apart from being served."""
    slow = outcome(requests=(asked(1011.0), asked(1012.0, wait=5.0)), interval=60.0)
    assert "resilient-auth served 100 % (50.0 % within a second)" in summary([slow])
    assert 'class="tardy">100 %' in render([slow], about())


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, "–"), (0.00018, "0.2 ms"), (0.0312, "31 ms"), (0.9999, "1.0 s"), (10.06, "10.1 s")],  # noqa: RUF001
)
def test_waits_are_written_in_the_unit_that_fits(value: float | None, text: str) -> None:
    """From microseconds to minutes."""
    assert wait(value) == text


def test_a_recovery_that_nobody_saw_is_a_lower_bound(outcome: Make) -> None:
    """The drill waited for ten seconds here."""
    assert recovery(outcome().sdk) == "> 10 s"


def test_the_note_on_the_clock_fits_the_plan() -> None:
    """It promises the margin within the outage only where it lies within."""
    assert "20 s into a token's life" in " ".join(clock_note(Plan()))
    assert "may not be reached" in " ".join(clock_note(Plan(token_lifetime=3600.0)))
