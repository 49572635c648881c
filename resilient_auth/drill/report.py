"""The drill's report: one HTML file that needs nothing else."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from html import escape
from pathlib import Path

from .client import SDK
from .judge import PROMPT, Finding
from .plan import Plan
from .run import Outcome
from .timeline import Axis, axis_of, strip
from .wording import (
    FRESH,
    LONG_DRILL,
    NOTHING,
    calls,
    clock_note,
    headline,
    longest,
    name,
    percent,
    recovery,
    shortfalls,
    totals,
    wait,
)

__all__ = ["RunInfo", "render"]


@dataclass(frozen=True, slots=True, kw_only=True)
class RunInfo:
    """How the drill was run.

    Attributes:
        command: What was typed.
        started: Seconds since the epoch.
        took: Seconds that it took.
        versions: Of all that took part.
        plan: What was asked for.
    """

    command: str
    started: float
    took: float
    versions: Mapping[str, str]
    plan: Plan


def render(outcomes: Sequence[Outcome], about: RunInfo) -> str:
    """Write the report as a whole HTML document."""
    style = Path(__file__).with_name("report.css").read_text(encoding="utf-8")
    body = "\n".join(
        part
        for section in (_opening(outcomes, about), _timelines(outcomes), _table(outcomes), _method(about))
        for part in section
    )
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>Outage drill: {escape(headline(outcomes))}</title>\n<style>\n{style}</style>\n</head>\n"
        f"<body>\n<main>\n{body}\n</main>\n</body>\n</html>\n"
    )


def _opening(outcomes: Sequence[Outcome], about: RunInfo) -> Iterator[str]:
    good = all(outcome.sdk.flawless for outcome in outcomes)
    broken = "in one way" if len(outcomes) == 1 else f"in {len(outcomes)} ways"
    who = escape(about.plan.app or SDK)
    yield f"<h1>Outage drill: plain MSAL and {who} at the same failing identity provider</h1>"
    yield f'<p class="headline {"good" if good else "bad"}">{escape(headline(outcomes))}</p>'
    yield (
        f'<p class="lead">An identity provider on this machine was broken {broken}, for {about.plan.outage:g} seconds '
        "each. Both clients had got a token before, which stayed valid throughout. So every single request of the "
        "application could have been served.</p>"
    )
    lines = shortfalls(outcomes)
    if lines:
        yield f'<div class="shortfalls">{"".join(f"<p>{escape(line)}</p>" for line in lines)}</div>'
    yield from _figures(outcomes)


def _figures(outcomes: Sequence[Outcome]) -> Iterator[str]:
    pairs = list(zip(*((outcome.peer, outcome.sdk) for outcome in outcomes), strict=True))
    yield '<table class="figures"><thead><tr><th scope="col">While the provider was dark</th>'
    yield "".join(f'<th scope="col">{escape(name(found[0].client))}</th>' for found in pairs) + "</tr></thead><tbody>"
    sums = [totals(findings) for findings in pairs]
    for title, place in (("Requests served with a valid token", 0), ("… within one second", 1)):
        cells = "".join(_share_cell(figures[place], figures[2]) for figures in sums)
        yield f'<tr><th scope="row">{title}</th>{cells}</tr>'
    slowest = [max(findings, key=lambda one: one.longest or 0.0) for findings in pairs]
    yield _figure_row("Longest wait of a request", [longest(finding) for finding in slowest])
    counted = [sum(finding.calls or 0 for finding in findings) for findings in pairs]
    yield _figure_row("Calls that reached the provider", [f"{count:,}" for count in counted])
    yield "</tbody></table>"


def _share_cell(part: int, whole: int) -> str:
    kind = _kind(part, whole)
    filled = 100.0 * part / whole if whole else 0.0
    return (
        f'<td><span class="{kind}">{percent(part, whole)}</span>'
        f'<span class="bar {kind}"><i style="width:{filled:.1f}%"></i></span></td>'
    )


def _figure_row(title: str, values: Sequence[str]) -> str:
    return f'<tr><th scope="row">{title}</th>{"".join(f"<td>{escape(value)}</td>" for value in values)}</tr>'


def _kind(part: int, whole: int) -> str:
    return "all" if part == whole > 0 else "some"


def _verdict(finding: Finding) -> str:
    # Being served after ten seconds is no good news, and must not look like it.
    whole = finding.served == finding.requests > finding.prompt
    return "tardy" if whole else _kind(finding.served, finding.requests)


_LEGEND = (
    ('<rect class="served" width="22" height="14"/>', "served with a valid token"),
    ('<rect class="late" width="22" height="14"/>', "served after more than a second"),
    ('<rect class="missed" width="22" height="14"/>', "not served"),
    ('<rect class="dark" width="22" height="14"/>', "provider dark"),
    ('<line class="call" x1="6" x2="6" y1="3" y2="13"/><line class="call" x1="14" x2="14" y1="3" y2="13"/>',
     "calls at the provider"),
    ('<line class="discard" x1="11" x2="11" y1="0" y2="14"/>', "MSAL discards its valid token (300 s left)"),
)  # fmt: skip


def _timelines(outcomes: Sequence[Outcome]) -> Iterator[str]:
    yield "<h2>Second by second</h2>"
    yield (
        "<p>Each strip is one client's requests over time. The outage starts at 0 s. A strip ends when both clients "
        "have a fresh token again, or when the drill stopped waiting for one.</p>"
    )
    items = (f'<li><svg viewBox="0 0 22 14" aria-hidden="true">{mark}</svg>{text}</li>' for mark, text in _LEGEND)
    yield f'<ul class="legend">{"".join(items)}</ul>'
    yield '<div class="faults">'
    axis = axis_of(*(finding for outcome in outcomes for finding in (outcome.peer, outcome.sdk)))
    for outcome in outcomes:
        yield from _card(outcome, axis)
    yield "</div>"


def _card(outcome: Outcome, axis: Axis) -> Iterator[str]:
    scenario = outcome.scenario
    yield f'<article class="fault"><h3>{escape(scenario.title)}</h3><p>{escape(scenario.story)}</p>'
    for finding in (outcome.peer, outcome.sdk):
        who, share = escape(name(finding.client)), percent(finding.served, finding.requests)
        figure = f'<b class="{_verdict(finding)}">{share}</b>'
        yield f'<div class="lane"><div class="who"><div>{who} {figure}</div><span>{_aside(finding)}</span></div>'
        label = f"{scenario.title}: {name(finding.client)} served {share} of the requests in the dark"
        yield strip(finding, axis, label=label, discards=finding is outcome.peer) + "</div>"
    yield _axis(axis, outcome.peer.healed) + "</article>"


def _aside(finding: Finding) -> str:
    told = [f"p99 wait {wait(finding.p99)}"]
    if finding.calls is not None:
        told.append(f"{calls(finding)} call{'' if finding.calls == 1 else 's'}")
    return escape(", ".join(told))


def _axis(axis: Axis, healed: float) -> str:
    marks = "".join(f'<span style="left:{100 * axis.share(m):.2f}%">{m:g} s</span>' for m in axis.marks())
    left, right = 100 * axis.share(0.0), 100 * axis.share(healed)
    dark = f'<em style="left:{left:.2f}%;width:{right - left:.2f}%">provider dark</em>'
    return f'<div class="axis" aria-hidden="true">{marks}{dark}</div>'


_COLUMNS = ("Requests", "Served", "p50", "p99", "max", "Calls", "Fresh after")


def _table(outcomes: Sequence[Outcome]) -> Iterator[str]:
    yield "<h2>The numbers</h2>"
    yield '<div class="scroll" tabindex="0" role="region" aria-label="The numbers"><table class="numbers"><thead><tr>'
    names = [name(finding.client) for finding in (outcomes[0].peer, outcomes[0].sdk)]
    groups = "".join(
        f'<th scope="colgroup" class="edge" colspan="{len(_COLUMNS)}">{escape(each)}</th>' for each in names
    )
    yield f"<th></th>{groups}</tr>"
    heads = "".join(f'<th scope="col"{_edge(number)}>{title}</th>' for number, title in enumerate(_COLUMNS))
    yield f'<tr><th scope="col">Fault</th>{heads * len(names)}</tr></thead><tbody>'
    for outcome in outcomes:
        cells = "".join(_cells(finding) for finding in (outcome.peer, outcome.sdk))
        yield f'<tr><th scope="row">{escape(outcome.scenario.title)}</th>{cells}</tr>'
    yield "</tbody></table></div>"
    yield (
        '<p class="small soft">Served: with a token that the provider\'s own ledger calls valid at that moment. Waits '
        "and calls are those of the dark. A request that comes due while its thread still waits for the one before it "
        f"shares that one's fate. Calls: {NOTHING} where connections are refused, since the provider never sees them. "
        f"Fresh after: time from the end of the outage to the first token issued since. {FRESH}</p>"
    )


def _edge(number: int) -> str:
    return "" if number else ' class="edge"'


def _cells(finding: Finding) -> str:
    values = (
        f"{finding.requests:,}",
        f'<b class="{_verdict(finding)}">{percent(finding.served, finding.requests)}</b>',
        _wait_cell(finding.median, wait(finding.median)),
        _wait_cell(finding.p99, wait(finding.p99)),
        _wait_cell(finding.longest, longest(finding)),
        calls(finding),
        escape(recovery(finding)),
    )
    return "".join(f"<td{_edge(number)}>{value}</td>" for number, value in enumerate(values))


def _wait_cell(value: float | None, text: str) -> str:
    return f'<b class="tardy">{escape(text)}</b>' if value is not None and value > PROMPT else escape(text)


def _asked(plan: Plan) -> str:
    asked = "<code>acquire_token_for_client</code>"
    return asked if plan.app is None else f"{asked}, or the application for a request,"


def _settings(plan: Plan) -> str:
    return "resilient-auth ran on its default settings" if plan.app is None else "the application ran on its own"


def _method(about: RunInfo) -> Iterator[str]:
    plan = about.plan
    yield "<h2>What clock this runs on</h2>"
    for paragraph in clock_note(plan):
        yield f"<p>{escape(paragraph).replace(LONG_DRILL, f'<code>{LONG_DRILL}</code>')}</p>"
    yield "<h2>How it was measured</h2>"
    timeout = (
        f"a time-out of {plan.msal_timeout:g} s, which it hasn't by default" if plan.msal_timeout else "no time-out"
    )
    yield (
        "<p>Under each fault, each client had a process and an emulated provider of its own, over real TLS on "
        f"loopback: {plan.threads} threads asked {_asked(plan)} {plan.rate:g} times a second in all, for "
        f"{plan.healthy:g} s of health, {plan.outage:g} s of outage and up to {plan.recovery:g} s of recovery. Plain "
        f"MSAL was given {timeout}; {_settings(plan)}. The clients reported each request with a hash of its token, and "
        "the providers' ledgers decided afterwards which hashes stood for "
        "valid ones.</p>"
    )
    yield (
        f"<p>Up to {min(plan.parallel, len(plan.scenarios))} faults ran at the same time on this machine, so waits for "
        "the provider include a share of waiting for the processor; <code>--parallel 1</code> measures them one by "
        "one.</p>"
    )
    started = datetime.fromtimestamp(about.started, UTC)
    yield "<dl>"
    yield f"<dt>Command</dt><dd><code>{escape(about.command)}</code></dd>"
    yield f"<dt>Run</dt><dd>{started:%Y-%m-%d %H:%M} UTC, {about.took:.0f} s</dd>"
    versions = ", ".join(f"{name} {number}" for name, number in about.versions.items())
    yield f"<dt>Versions</dt><dd>{escape(versions)}</dd></dl>"
