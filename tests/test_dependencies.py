"""What the package imports is declared, and no version that it allows has a known hole."""

from __future__ import annotations

import ast
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path
from typing import NamedTuple

import pytest
from oldest import lowest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
#: Where an import needs extras: the room or module, and the extras' names. An integration's is its own name.
NEEDS = {
    "drill/client/exported.py": "prometheus otel",
    "emulator": "emulator",
    "drill": "emulator",
    "_credentials/azure_errors.py": "azure",
    "_credentials/azure_shapes.py": "azure",
    "_store/redis": "redis",
    "telemetry/__init__.py": "otel",
    "telemetry/meters.py": "otel",
    "telemetry/tracing.py": "otel",
    "telemetry/prometheus.py": "prometheus",
    "integrations/callout_routes/django.py": "django",
    "integrations/callout_routes/flask.py": "flask",
    "integrations/callout_routes/starlette.py": "fastapi",
    "integrations/health_routes/django.py": "django",
    "integrations/health_routes/flask.py": "flask",
    "integrations/health_routes/starlette.py": "fastapi",
    "integrations/status_page/django.py": "django",
    "integrations/status_page/flask.py": "flask",
    "integrations/status_page/starlette.py": "fastapi",
    "integrations/signals/django.py": "django",
    "integrations/signals/flask.py": "flask",
    "integrations/signals/starlette.py": "fastapi",
    "integrations/signing_in/django.py": "django",
    "integrations/signing_in/flask.py": "flask",
    "integrations/signing_in/starlette.py": "fastapi",
    "integrations/django/rest.py": "drf",
    "integrations/django": "django",
    "integrations/azure_core.py": "azure",
    "integrations/postgres.py": "psycopg",
}
#: Names that several distributions share: which of them is meant, whatever else is installed.
SHARED = {"google": ["google-auth"]}
#: Imported where somebody brings them: a pytest plugin's host, and an old cache that is read.
BROUGHT = {"pytest", "msal_extensions"}


class Advisory(NamedTuple):
    """A known hole: below this version it is open."""

    package: str
    fixed: str
    ids: str
    source: str


ADVISORIES = (
    Advisory("pyjwt", "2.12.0", "CVE-2026-32597", "GHSA-752w-5fwx-jx9f: unknown `crit` extensions are accepted"),
    Advisory("pyjwt", "2.13.0", "CVE-2026-48523", "GHSA-jq35-7prp-9v3f: a PyJWK goes past the allowed algorithms"),
    Advisory("pyjwt", "2.13.0", "GHSA-xgmm-8j9v-c9wx", "its release notes: a JWK's text is taken for an HMAC secret"),
    Advisory("pyjwt", "2.14.0", "CVE-2026-102267", "GHSA-9v7f-9g4p-ffgj: PyJWKClient follows redirects anywhere"),
    Advisory("pyjwt", "2.15.0", "CVE-2026-101918", "GHSA-42vr-xj54-vc7v"),
    Advisory("azure-core", "1.38.0", "CVE-2026-21226", "MSRC: untrusted data is deserialised"),
    Advisory("requests", "2.32.4", "CVE-2024-47081", "GHSA-9hjg-9r4m-mvj7: .netrc credentials go to another host"),
    Advisory("requests", "2.33.0", "CVE-2026-25645", "GHSA-gc5v-m9x4-r6x2: a predictable temporary file"),
    Advisory("urllib3", "2.7.0", "GHSA-mf9v-mfxr-j63j", "decompression bombs past the streaming API's safeguards"),
    Advisory("urllib3", "2.7.0", "GHSA-qccp-gfcp-xxvc", "sensitive headers go to other origins through a proxy"),
    Advisory("urllib3", "2.8.0", "CVE-2026-97687", "the TLS settings for an HTTPS proxy are ignored"),
    Advisory("urllib3", "2.8.0", "CVE-2026-97689", "the line of a chunk's size is unbounded"),
    Advisory("cryptography", "46.0.5", "CVE-2026-26007", "its changelog: keys on binary curves aren't checked"),
    Advisory("cryptography", "46.0.6", "CVE-2026-34073", "its changelog: name constraints and wildcards"),
    Advisory("cryptography", "46.0.7", "CVE-2026-39892", "its changelog: buffers that aren't contiguous"),
    # Not CVE-2026-69247 (50.0.0, an oracle in PKCS#7): nothing here uses that, and msal wants cryptography under 51.
    Advisory("certifi", "2024.7.4", "CVE-2024-39689", "GHSA-248v-346w-9cwc: authorities that are no longer trusted"),
    # httpcore 1.0.9 is the first that wants this h11.
    Advisory("httpcore", "1.0.9", "CVE-2025-43859", "GHSA-vqfr-h8mv-ghfj: h11 takes malformed chunks"),
    Advisory("h11", "0.16.0", "CVE-2025-43859", "GHSA-vqfr-h8mv-ghfj: malformed chunks are taken"),
    Advisory("starlette", "1.0.1", "CVE-2026-48710", "GHSA-86qp-5c8j-p5mr: the Host header moves request.url's path"),
    Advisory("starlette", "1.3.0", "PYSEC-2026-248", "release notes of 1.3.0: a path moves request.url's host"),
    Advisory("flask", "3.1.3", "GHSA-68rp-wp8r-4726", "release notes of 3.1.3: sessions in shared caches"),
    Advisory("werkzeug", "3.1.6", "GHSA-29vq-49wr-vm6x", "release notes of 3.1.6: device names in safe_join"),
    Advisory("django", "5.2.11", "CVE-2026-1207", "Django's security releases of 3 February 2026"),
)


def required(lists: list[str]) -> dict[str, Requirement]:
    requirements = [Requirement(one) for one in lists if isinstance(one, str)]
    return {canonicalize_name(one.name): one for one in requirements}


BASE = required(PROJECT["project"]["dependencies"])
EXTRAS = {name: required(lists) for name, lists in PROJECT["project"]["optional-dependencies"].items()}
NEEDS |= {f"integrations/{name}.py": name for name in EXTRAS}
GROUPS = {name: required(lists) for name, lists in PROJECT["dependency-groups"].items()}


def imported(path: Path) -> set[str]:
    """The top-level names of other packages that a module imports, wherever it does so."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level and node.module:
            names.add(node.module.partition(".")[0])
    return names - sys.stdlib_module_names - {"resilient_auth"} - BROUGHT


def test_what_is_imported_is_declared():
    """Each module's imports are in the install, or in the extra that it says it needs."""
    distributions = {**packages_distributions(), **SHARED}
    missing = []
    for path in sorted((ROOT / "resilient_auth").rglob("*.py")):
        place = path.relative_to(ROOT / "resilient_auth").as_posix()
        extras = next((names for start, names in NEEDS.items() if place.startswith(start)), "")
        declared = {*BASE, *(name for extra in extras.split() for name in EXTRAS[extra])}
        for name in sorted(imported(path)):
            brought_by = {canonicalize_name(one) for one in distributions.get(name, [name])}
            if not brought_by & declared:
                missing.append(f"{place}: {name}")
    assert not missing


@pytest.mark.parametrize(("folder", "group"), [("tests", "test"), ("docs", "docs"), ("benchmarks", "bench")])
def test_what_is_imported_beside_the_package_is_declared(folder, group):
    """In the group that is installed for it, or in what the package itself needs."""
    distributions = {**packages_distributions(), **SHARED}
    declared = {*BASE, *GROUPS[group], *(name for extra in EXTRAS.values() for name in extra)}
    ours = {path.stem for part in ("tests", "docs", "benchmarks", "examples") for path in (ROOT / part).rglob("*")}
    missing = [
        f"{path.relative_to(ROOT)}: {name}"
        for path in sorted((ROOT / folder).rglob("*.py"))
        for name in sorted(imported(path) - ours - {"tests"})
        if not {canonicalize_name(one) for one in distributions.get(name, [name])} & declared
    ]
    assert not missing


@pytest.mark.parametrize("where", ["install", *EXTRAS])
def test_everything_has_a_lower_bound(where):
    """Without one, any version that was ever released may be installed."""
    for requirement in (BASE if where == "install" else EXTRAS[where]).values():
        lowest(requirement)


@pytest.mark.parametrize("advisory", ADVISORIES, ids=lambda one: f"{one.package} {one.ids}")
def test_the_oldest_allowed_version_has_no_known_hole(advisory):
    """Wherever a package is named with a bound, that bound is past what was mended."""
    named = [
        requirements[advisory.package]
        for requirements in (BASE, *EXTRAS.values(), *GROUPS.values())
        if advisory.package in requirements and requirements[advisory.package].specifier
    ]
    assert named, f"{advisory.package} isn't declared"
    for requirement in named:
        assert lowest(requirement) >= Version(advisory.fixed), f"{requirement}: {advisory.ids}, {advisory.source}"
