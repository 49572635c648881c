"""What terminal and report say in the same words."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from .client import PEER, SDK
from .judge import Finding
from .plan import MSAL_MARGIN, Plan
from .run import Outcome

__all__ = [
    "FRESH",
    "LONG_DRILL",
    "NOTHING",
    "calls",
    "clock_note",
    "headline",
    "name",
    "percent",
    "recovery",
    "shortfalls",
    "summary",
    "totals",
    "wait",
]

NOTHING = "–"  # noqa: RUF001 - an en dash stands for no value
#: The 9-minute outage, in which MSAL's margin costs half of the requests.
LONG_DRILL = "resilient-auth drill --fault http_503 --token-lifetime 600 --refresh-in 300 --outage 540"

#: Why a fresh token may come late, which needs saying next to the number.
FRESH = (
    "A client with a valid token in hand can do without a fresh one: resilient-auth then keeps the circuit open "
    "for longer, and probes the provider more often only when there is nothing left to serve."
)


def name(client: str) -> str:
    """Return what a client is called."""
    return "MSAL" if client == PEER else client


def percent(part: int, whole: int) -> str:
    """Write a share; never rounded up, so that 100 % means all."""
    if whole == 0:
        return NOTHING
    if part == whole:
        return "100 %"
    return f"{math.floor(1000.0 * part / whole) / 10:.1f} %"


def wait(value: float | None) -> str:
    """Write a wait, given in seconds."""
    if value is None:
        return NOTHING
    if value >= 0.9995:
        return f"{value:.1f} s"
    return f"{value * 1000:.0f} ms" if value >= 0.0095 else f"{value * 1000:.1f} ms"


def longest(finding: Finding) -> str:
    """Write the longest wait; a lower bound where a request hung to the end."""
    return f"> {wait(finding.longest)}" if finding.hung else wait(finding.longest)


def calls(finding: Finding) -> str:
    """Write the number of calls at the provider."""
    return NOTHING if finding.calls is None else f"{finding.calls:,}"


def recovery(finding: Finding) -> str:
    """Write how long the first fresh token took after the outage; a lower bound where none came in time."""
    if finding.recovered is None:
        return f"> {math.floor(finding.ended - finding.healed)} s"
    return f"{finding.recovered:.1f} s"


def totals(findings: Iterable[Finding]) -> tuple[int, int, int]:
    """Add up served requests, promptly served ones and all of them."""
    listed = list(findings)
    return sum(f.served for f in listed), sum(f.prompt for f in listed), sum(f.requests for f in listed)


def summary(outcomes: Sequence[Outcome]) -> str:
    """Say in one line what both served while the provider was dark."""
    told = []
    for findings in ([o.peer for o in outcomes], [o.sdk for o in outcomes]):
        served, prompt, requests = totals(findings)
        promptly = "" if prompt == served else f" ({percent(prompt, requests)} within a second)"
        told.append(f"{name(findings[0].client)} served {percent(served, requests)}{promptly}")
    return ", ".join(told)


def headline(outcomes: Sequence[Outcome]) -> str:
    """Say who kept the application running."""
    kept = sum(outcome.sdk.flawless for outcome in outcomes)
    faults = "fault" if len(outcomes) == 1 else "faults"
    client = outcomes[0].sdk.client
    if kept == len(outcomes):
        every = "the one fault" if kept == 1 else f"all {kept} faults"
        return f"{_who(client)} through {every}."
    return f"{_who(client)} through {kept} of {len(outcomes)} {faults} only."


def _who(client: str) -> str:
    return f"{SDK} kept the application running" if client == SDK else f"{client} came"


def shortfalls(outcomes: Sequence[Outcome]) -> list[str]:
    """Say where the SDK fell short, a line each."""
    lines = []
    for outcome in outcomes:
        sdk, title = outcome.sdk, outcome.scenario.title
        if sdk.flawless:
            continue
        if sdk.trouble is not None:
            lines.append(f"{title}: {sdk.client} can't be judged: {sdk.trouble}")
        elif sdk.missed == 0:
            lines.append(f"{title}: {sdk.client} can't be judged: it made no request with a valid token in hand")
        else:
            whys = ", ".join(f"{count} x {why}" for why, count in sdk.errors[:3])
            lines.append(f"{title}: {sdk.client} failed {sdk.missed} requests with a valid token in hand ({whys})")
    return lines


def clock_note(plan: Plan) -> tuple[str, ...]:
    """Say what clock the drill runs on and what that means, a paragraph each."""
    usable = plan.token_lifetime - MSAL_MARGIN
    if usable < plan.outage:
        margin = (
            f"MSAL takes a token with under {MSAL_MARGIN:.0f} s left for expired. So {max(usable, 0):g} s into a "
            "token's life, plain MSAL throws it away, while the provider's ledger calls it valid for "
            f"{MSAL_MARGIN:.0f} s more."
        )
    else:
        margin = (
            f"MSAL takes a token with under {MSAL_MARGIN:.0f} s left for expired: {usable:g} s into its life. In this "
            f"outage of {plan.outage:g} s that may not be reached."
        )
    return (
        "The drill runs in real time, on the machine's own clock; nothing is simulated. "
        f"Tokens live {plan.token_lifetime:g} s and are due for a refresh after {plan.refresh_in:g} s (refresh_in).",
        f"{margin} The life is short so that a drill of a minute gets there. The rule is the one that costs MSAL half "
        "of its requests in a 9-minute outage with 600 s tokens and refresh_in 300 s, in which the token stays valid "
        "throughout; with the short refresh_in it shows at its worst. An outage that ends before refresh_in has "
        "passed costs neither client anything.",
        f"With longer tokens: {LONG_DRILL}",
    )
