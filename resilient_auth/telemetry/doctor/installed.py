"""What is installed, against what the package asks for."""

from __future__ import annotations

import platform
import re
import ssl
from collections.abc import Iterator
from importlib import metadata
from typing import Final

from .finding import Finding, error, note, ok
from .patient import Patient

__all__ = ["check_versions"]

_PACKAGE: Final = "resilient-auth"
#: A requirement that holds for everybody: `msal<2,>=1.39`. One of an extra has a semicolon.
_REQUIREMENT = re.compile(r"([A-Za-z0-9._-]{1,64})(?:\[[a-z,]{1,64}\])?([<>=!~0-9.,a-z* ]{0,128})")
_BOUND = re.compile(r"(>=|<)([0-9]{1,9}(?:\.[0-9]{1,9}){0,5})")
_NUMBERS = re.compile(r"[0-9]{1,9}(?:\.[0-9]{1,9}){0,5}")


def check_versions(patient: Patient) -> Iterator[Finding]:
    """Compare the versions of msal and what else is needed with the bounds that the package has."""
    try:
        asked = metadata.requires(_PACKAGE) or []
    except metadata.PackageNotFoundError:
        yield note("not_installed", f"{_PACKAGE} runs from a folder, and its requirements aren't known", "install it")
        return
    wrong = False
    shown = []
    for line in asked:
        found = _REQUIREMENT.fullmatch(line)
        if found is None:  # an extra's
            continue
        name, bounds = found[1], found[2]
        try:
            version = metadata.version(name)
        except metadata.PackageNotFoundError:
            wrong = True
            yield error("package_missing", f"{name} isn't installed", f"pip install '{line}'", rule="G1")
            continue
        shown.append(f"{name} {version}")
        if not _within(version, bounds):
            wrong = True
            yield error(
                "version_wrong",
                f"{name} {version} is installed, and {bounds.strip()} is needed",
                f"pip install '{line}'",
                rule="G1",
            )
    if not wrong:
        where = f"Python {platform.python_version()}, {ssl.OPENSSL_VERSION}"
        yield ok(f"{', '.join(sorted(shown))}, {where}", rule="G1")


def _within(version: str, bounds: str) -> bool:
    """Return whether a version's release is at or above the lower bounds, and below the upper ones."""
    release = _parts(version)
    return all(
        release >= _parts(bound) if sign == ">=" else release < _parts(bound) for sign, bound in _BOUND.findall(bounds)
    )


def _parts(version: str) -> tuple[int, ...]:
    found = _NUMBERS.match(version)
    numbers = [int(part) for part in found[0].split(".")] if found else []
    while numbers and numbers[-1] == 0:
        numbers.pop()
    return tuple(numbers)
