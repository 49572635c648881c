"""The application's own credential: is it there, whole, closed to others, and how long does it last (G24)."""

from __future__ import annotations

import datetime
import json
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from ..._credentials.assertions import assertion_from_file
from ..._msal.rotation.certificate import Unusable, parse
from ..._process.small_file import read_anew
from .configuration import Setup
from .finding import Finding, error, note, ok, warning
from .patient import Patient

__all__ = ["as_msal_takes_it", "check_credential", "check_secrets_on_disk"]

_DAY: Final = 86_400.0
#: Days ahead of its end at which a credential is warned of, and at which that is urgent.
_SOON, _URGENT = 60, 7
_LARGEST: Final = 1024 * 1024
_ROTATE: Final = (
    "make a new one now, give both to the application's registration, and take the old one away when nobody uses it; a "
    "managed identity rotates by itself"
)


def check_credential(patient: Patient) -> Iterator[Finding]:
    """Read the certificate, and tell how many days it, or the secret, has left."""
    setup, wall = patient.setup, patient.clock.wall()
    if setup.certificate:
        try:
            _, ends = _read(setup)
        except Unusable as refusal:
            code = "key_of_another" if refusal.code == "mismatched" else "certificate_unusable"
            yield error(code, f"{setup.certificate}: {refusal.detail}", "give PEM or PFX, the certificate with its key")
            return
        yield _life(f"the certificate {setup.certificate}", ends - wall)
    elif setup.client_secret and setup.secret_expires is None:
        yield note(
            "secret_end_unknown",
            "nobody knows when the client secret runs out, so nobody can warn of it",
            "give secret_expires = <date>, as the application's registration shows it",
            rule="G24",
        )
    elif setup.client_secret and setup.secret_expires is not None:
        # It runs out in the course of that day.
        begins = datetime.datetime.combine(setup.secret_expires, datetime.time(), datetime.UTC).timestamp()
        ends = begins + _DAY
        yield _life("the client secret", ends - wall)
    elif file := patient.environ.get("AZURE_FEDERATED_TOKEN_FILE"):
        if not os.access(file, os.R_OK):
            yield error(
                "assertion_unreadable",
                f"AZURE_FEDERATED_TOKEN_FILE names {file}, which can't be read",
                "mount the workload's token there (azure.workload.identity/use on the pod)",
                rule="G24",
            )
        else:
            yield ok("a federated token is there, which the platform rotates", rule="G24")
    elif {"client_credentials", "on_behalf_of", "web_app"} & set(setup.flows):
        yield warning(
            "credential_missing",
            "no credential is given, so none can be tried",
            "set AZURE_CLIENT_SECRET or AZURE_CLIENT_CERTIFICATE_PATH for this command",
        )


def check_secrets_on_disk(patient: Patient) -> Iterator[Finding]:
    """Look for secrets that lie in files, in the clear or open to others."""
    setup, found = patient.setup, False
    if setup.secrets_in:
        found = True
        open_to = _open_to_others(setup.secrets_in)
        yield (error if open_to else warning)(
            "secret_in_file",
            f"{setup.secrets_in} holds the application's secret in the clear{open_to}",
            "take it out, and give it by AZURE_CLIENT_SECRET from a secret store; make a new one if others could read",
            rule="G24",
        )
    if setup.certificate and (open_to := _open_to_others(setup.certificate)):
        found = True
        yield error(
            "key_open",
            f"{setup.certificate} holds the application's key{open_to}",
            f"chmod 600 {setup.certificate}, and consider the key disclosed",
            rule="G24",
        )
    if setup.token_cache and _in_the_clear(setup.token_cache):
        found = True
        yield error(
            "cache_in_clear",
            f"{setup.token_cache} holds MSAL's cache in the clear{_open_to_others(setup.token_cache)}: with its "
            "refresh tokens anybody can act as its users",
            "move it into a sealed store by resilient_auth.import_msal_cache, and delete the file",
            rule="G3",
        )
    if not found and (setup.certificate or setup.token_cache or setup.client_secret):
        yield ok("no secret that was looked for lies open on this disk")


def as_msal_takes_it(patient: Patient) -> Any:
    """Return the credential as MSAL takes it; None where there is none."""
    setup = patient.setup
    if not setup.certificate:
        file = patient.environ.get("AZURE_FEDERATED_TOKEN_FILE")
        if setup.client_secret or not file:
            return setup.client_secret or None
        return {"client_assertion": assertion_from_file(file)}
    try:
        return _read(setup)[0]
    except Unusable:
        return None  # which `check_credential` says


def _life(whose: str, seconds: float) -> Finding:
    days = int(abs(seconds) // _DAY)
    if seconds <= 0:
        when = f"{_spell(days)} ago" if days else "today"
        return error("credential_over", f"{whose} ran out {when}", _ROTATE, rule="G24")
    if days > _SOON:
        return ok(f"{whose} lasts another {_spell(days)}", rule="G24")
    when = f"in {_spell(days)}" if days else "today"
    return (error if days <= _URGENT else warning)("credential_ends", f"{whose} runs out {when}", _ROTATE, rule="G24")


def _spell(days: int) -> str:
    return "1 day" if days == 1 else f"{days} days"


def _read(setup: Setup) -> tuple[Any, float]:
    try:
        return parse(read_anew(setup.certificate, _LARGEST).data, setup.certificate_password.encode() or None)
    except OSError as failure:
        raise Unusable("unreadable", f"it can't be read ({failure.strerror})") from None
    except ValueError as refusal:
        raise Unusable("malformed", str(refusal)) from None


def _in_the_clear(path: str) -> bool:
    try:
        return isinstance(json.loads(Path(path).read_bytes()), dict)
    except (OSError, ValueError, RecursionError):
        return False


def _open_to_others(path: str) -> str:
    """Return `, and others can read it`, where they can."""
    try:
        mode = os.stat(path).st_mode
    except OSError:
        return ""
    # On Windows the modes tell nothing. A mounted Secret is root's, and its group the pod's (0440).
    return f", and others can read it (mode {stat.S_IMODE(mode):o})" if os.name == "posix" and mode & 0o004 else ""
