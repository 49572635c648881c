"""What was found, for a person and for a program."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from typing import Any, Final

from .finding import Finding, exit_status

__all__ = ["as_json", "lines_of", "summary"]

_MARKS: Final = {"ok": "ok", "note": "note", "skipped": "-", "warning": "WARNING", "error": "ERROR"}


def lines_of(finding: Finding) -> Iterator[str]:
    """Write a finding as a line, and what mends it as another one below."""
    rule = f" [{finding.rule}]" if finding.rule else ""
    yield f"{_MARKS[finding.severity]:<8} {finding.check:<17} {finding.what}{rule}"
    if finding.fix:
        yield f"{'':<26} -> {finding.fix}"


def summary(findings: Iterable[Finding]) -> str:
    """Write how it stands, in a line."""
    severities = [finding.severity for finding in findings]
    wrong = [
        f"{count} {name}{'' if count == 1 else 's'}"
        for name in ("error", "warning")
        if (count := severities.count(name))
    ]
    skipped = severities.count("skipped")
    told = f"; {skipped} not looked at" if skipped else ""
    return f"{', '.join(wrong)}{told}" if wrong else f"healthy{told}"


def as_json(findings: Sequence[Finding]) -> dict[str, Any]:
    """Return it all as JSON has it."""
    return {
        "healthy": exit_status(findings) == 0,
        "summary": summary(findings),
        "findings": [asdict(finding) for finding in findings],
    }
