"""The checks, in their order, each of them bounded in time."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from ...clock import Clock, SystemClock
from ...errors import ConfigurationError
from .configuration import Setup
from .credential import check_credential, check_secrets_on_disk
from .finding import Finding, error, warning
from .identity import check_managed_identity
from .installed import check_versions
from .network import check_name, check_port, check_proxies, check_tls, check_trust
from .patient import Patient
from .provider import check_clock, check_discovery, check_keys, check_token
from .rules import (
    check_backup,
    check_challenges,
    check_grants,
    check_persistence,
    check_scopes,
    check_settings,
    check_target,
)
from .stores import check_store

__all__ = ["CHECKS", "Check", "examine"]

#: Seconds by which a check may outlast its time-out before it is left alone: a resolver can't be told to hurry.
_SPARE: Final = 1.0


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that is looked at; what it looks at is its function's docstring."""

    name: str
    run: Callable[[Patient], Iterator[Finding]]
    #: Checks without whose success this one would only repeat what they said.
    needs: tuple[str, ...] = ()
    #: Whether it is about the provider, and so about nothing where none is named.
    of_provider: bool = False
    #: What is likely where it doesn't come back.
    late: str = "look for what hangs: a resolver, a mounted disk, or a firewall that swallows"


CHECKS: Final[tuple[Check, ...]] = (
    Check("target", check_target),
    Check("settings", check_settings),
    Check("versions", check_versions),
    Check("proxy", check_proxies),
    Check("trust", check_trust, of_provider=True),
    Check(
        "name",
        check_name,
        needs=("proxy",),
        of_provider=True,
        late="mend the DNS server in /etc/resolv.conf, which doesn't answer, or the way to it",
    ),
    Check("port", check_port, needs=("name",), of_provider=True),
    Check("tls", check_tls, needs=("trust", "port"), of_provider=True),
    Check("discovery", check_discovery, needs=("tls",), of_provider=True),
    Check("clock", check_clock, needs=("tls",), of_provider=True),
    Check("keys", check_keys, needs=("discovery",), of_provider=True),
    Check("credential", check_credential),
    Check("scopes", check_scopes),
    Check("token", check_token, needs=("discovery", "credential", "scopes"), of_provider=True),
    Check("managed_identity", check_managed_identity),
    Check("store", check_store, late="look whether its disk or its server hangs"),
    Check("persistence", check_persistence),
    Check("secrets_on_disk", check_secrets_on_disk),
    Check("grants", check_grants),
    Check("challenges", check_challenges),
    Check("backup", check_backup),
)


def examine(setup: Setup, *, environ: Mapping[str, str] | None = None, clock: Clock | None = None) -> Iterator[Finding]:
    """Carry out every check, and yield what each found as it comes.

    Args:
        setup: What is examined.
        environ: The environment to look at for traps; the process's when not given.
        clock: Where the time comes from; for tests.

    Returns:
        Findings, in the order of the checks. Each check takes `setup.timeout` and a second at most.
    """
    patient = Patient(setup, os.environ if environ is None else environ, clock or SystemClock())
    #: By check that failed or wasn't made, the one that is the cause.
    failed: dict[str, str] = {}
    for check in CHECKS:
        if check.of_provider and not setup.document_url:
            continue
        lacking = [name for name in check.needs if name in failed]
        if lacking:
            cause = failed[check.name] = failed[lacking[0]]
            told = f"not looked at, because of what {cause} found"
            yield Finding(severity="skipped", code="skipped", what=told).of(check.name)
            continue
        for found in _bounded(check, patient):
            if found.severity == "error":
                failed[check.name] = check.name
            yield found.of(check.name)


def _bounded(check: Check, patient: Patient) -> list[Finding]:
    """Return what a check found; one that doesn't come back in time is left alone."""
    found: list[Finding] = []

    def run() -> None:
        try:
            found.extend(check.run(patient))
        except ConfigurationError as refusal:
            found.append(error("configuration", str(refusal), "as it says"))
        except OSError as failure:
            # Without the path or the address, which may hold anything.
            said = failure.strerror or type(failure).__name__
            found.append(
                error("system", f"the system says: {said}", "look at the path or address that is given for it")
            )
        except Exception as failure:  # noqa: BLE001 - the others are still to be made
            # Its text may quote what it was given.
            found.append(warning("check_failed", f"the check itself fails ({type(failure).__name__})", "report it"))

    limit = patient.setup.timeout + _SPARE
    thread = threading.Thread(target=run, name=f"resilient-auth-doctor-{check.name}", daemon=True)
    thread.start()
    thread.join(limit)
    if thread.is_alive():
        return [error("timed_out", f"it didn't come back within {limit:g} s", check.late)]
    return found
