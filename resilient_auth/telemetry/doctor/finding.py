"""What a check found."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Final, Literal

from ..._wire.redaction import redact
from ...errors import printable

__all__ = ["Finding", "Severity", "error", "exit_status", "note", "ok", "warning"]

Severity = Literal["ok", "note", "skipped", "warning", "error"]

_LONGEST: Final = 600


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that a check found; holds no secret."""

    #: Which check; its name in `CHECKS`.
    check: str = ""
    #: "ok" and "note" need nothing; "warning" will be trouble; "error" is trouble now; "skipped" couldn't be looked at.
    severity: Severity
    #: Stable, such as `name_unknown`.
    code: str
    #: What is, in plain words.
    what: str
    #: What mends it; empty where there is nothing to mend.
    fix: str = ""
    #: The rule of the guidance that it is about, such as `G24`.
    rule: str = ""

    def of(self, check: str) -> Finding:
        """Return it as a check's, safe to print: what a provider or a file said may hold anything."""
        return replace(self, check=check, what=_safe(self.what), fix=_safe(self.fix))


#: A user's name and password in a URL, which somebody gave where a path or a host belongs.
_USER = re.compile(r"://[^/@\s]{1,512}@")


def _safe(text: str) -> str:
    kept = _USER.sub("://...@", printable(redact(text)))
    return kept if len(kept) <= _LONGEST else f"{kept[:_LONGEST]}..."


def ok(what: str, *, rule: str = "") -> Finding:
    """Return that all is well."""
    return Finding(severity="ok", code="ok", what=what, rule=rule)


def note(code: str, what: str, fix: str = "", *, rule: str = "") -> Finding:
    """Return what is good to know."""
    return Finding(severity="note", code=code, what=what, fix=fix, rule=rule)


def warning(code: str, what: str, fix: str, *, rule: str = "") -> Finding:
    """Return what will be trouble."""
    return Finding(severity="warning", code=code, what=what, fix=fix, rule=rule)


def error(code: str, what: str, fix: str, *, rule: str = "") -> Finding:
    """Return what is trouble now."""
    return Finding(severity="error", code=code, what=what, fix=fix, rule=rule)


def exit_status(findings: Iterable[Finding]) -> int:
    """Return 0 where nothing needs mending, 1 where there are warnings alone, 3 where there is an error.

    2 is what a command line that can't be read ends with.
    """
    found = {finding.severity for finding in findings}
    return 3 if "error" in found else 1 if "warning" in found else 0
