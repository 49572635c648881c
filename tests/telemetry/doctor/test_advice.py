"""The advice is right for the provider, the flow and the day that it is given for."""

from __future__ import annotations

import datetime
from collections.abc import Callable
from email.utils import formatdate
from pathlib import Path
from typing import Any

import pytest
from test_planted_faults import certificate

from resilient_auth._wire.answers import WireResponse
from resilient_auth.emulator import Emulator
from resilient_auth.telemetry.doctor import CHECKS, Finding, Setup
from resilient_auth.telemetry.doctor.patient import Patient

ENTRA = "https://login.microsoftonline.com/contoso"
B2C = "https://contoso.b2clogin.com/contoso.onmicrosoft.com/b2c_1_sign_in"
ADFS = "https://sts.contoso.example/adfs"
CHINA = "https://login.partner.microsoftonline.cn/contoso"


def found_by(check: str, patient: Patient) -> list[Finding]:
    return list(next(each for each in CHECKS if each.name == check).run(patient))


@pytest.mark.parametrize("number", [70021, 700211, 700212, 700213])
def test_a_federated_credential_that_is_not_known(
    idp: Emulator, diagnose: Callable[..., list[Finding]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, number: int
) -> None:
    """There is no secret and no certificate to look at."""
    (tmp_path / "token").write_text("a.b.c")
    monkeypatch.setenv("AZURE_FEDERATED_TOKEN_FILE", str(tmp_path / "token"))
    description = f"AADSTS{number}: No matching federated identity record found for presented assertion."
    idp.deny("client_credentials", "invalid_client", description, status=401)
    (error,) = [each for each in diagnose(client_secret="") if each.severity == "error"]
    assert (error.check, error.code) == ("token", "federated_unknown")
    assert "issuer, subject and audience" in error.fix


@pytest.mark.parametrize(
    ("age", "codes"), [("3600", []), ("0", ["clock_wrong"]), (None, ["clock_wrong"]), ("x", ["clock_wrong"])]
)
def test_a_document_out_of_a_cache_says_how_old_its_date_is(age: str | None, codes: list[str]) -> None:
    """By `Age` (RFC 9111, section 5.1): no clock is wrong for that."""
    patient = Patient(Setup(authority=ENTRA))
    patient.answered_at = now = patient.clock.wall()
    headers = {"date": formatdate(now - 3600, usegmt=True)} | ({} if age is None else {"age": age})
    patient.answer = WireResponse(200, "{}", headers)
    assert [each.code for each in found_by("clock", patient) if each.severity != "ok"] == codes


@pytest.mark.parametrize(
    ("days", "severity", "says"),
    [
        (1, "error", "runs out in 1 day"),
        (0, "error", "runs out today"),
        (-1, "error", "ran out today"),
        (-2, "error", "ran out 1 day ago"),
    ],
)
def test_the_days_of_a_secret_are_counted_from_the_end_of_its_last_one(days: int, severity: str, says: str) -> None:
    """It runs out in the course of it."""
    day = datetime.datetime.now(datetime.UTC).date() + datetime.timedelta(days=days)
    (found,) = found_by("credential", Patient(Setup(client_secret="s", secret_expires=day)))
    assert (found.severity, says in found.what) == (severity, True), found.what


def test_a_certificate_that_ran_out_this_morning_did_so_today(tmp_path: Path) -> None:
    """And not yesterday."""
    file = certificate(tmp_path / "app.pem", -0.1)
    (found,) = found_by("credential", Patient(Setup(certificate=file)))
    assert (found.code, "ran out today" in found.what) == ("credential_over", True), found.what


def test_an_application_of_users_and_of_its_own(idp: Emulator, diagnose: Callable[..., list[Finding]]) -> None:
    """The sets of its users are none of client credentials, and the token is asked for by that which is."""
    scopes = (("api://mine/read",), ("api://mine/.default",))
    found = diagnose(flows=("web_app", "client_credentials"), scopes=scopes)
    assert not [each for each in found if each.severity in ("error", "warning")], found
    assert [call.scope for call in idp.ledger.token_calls()][-1:] == ["api://mine/.default"]


def test_an_application_of_users_and_of_its_own_without_a_scope_for_that(wrong: Callable[..., set[str]]) -> None:
    """Which client credentials need."""
    found = wrong(flows=("web_app", "client_credentials"), scopes=(("api://mine/read",),))
    assert found == {"scopes error scope_not_default"}


def test_a_redis_that_shows_its_user_no_settings_is_there(
    diagnose: Callable[..., list[Finding]], valkey: Any, redis_url: str
) -> None:
    """As Azure's policy for those who read and write data has it: `INFO` is among the dangerous commands."""
    valkey.acl_setuser("few", enabled=True, passwords=["+pw"], keys=["*"], categories=["+@all", "-@dangerous"])
    try:
        found = diagnose(store=redis_url.replace("://", "://few:pw@"))
    finally:
        valkey.acl_deluser("few")
    told = [(each.severity, each.code) for each in found if each.check == "store"]
    assert told == [("note", "store_settings_unknown"), ("ok", "ok")], found


def test_a_managed_identity_beside_users_is_asked_for_its_own_scope(
    idp: Emulator, diagnose: Callable[..., list[Finding]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """And not for one that users grant."""
    monkeypatch.setenv("AZURE_POD_IDENTITY_AUTHORITY_HOST", idp.metadata_url)
    scopes = (("User.Read",), ("https://vault.azure.net/.default",))
    diagnose(flows=("web_app", "managed_identity"), scopes=scopes, client_id="")
    (asked,) = [token for token in idp.ledger.tokens if token.client_id.startswith("5e1f")][-1:]
    assert asked.scopes == ("https://vault.azure.net/.default",)


@pytest.mark.parametrize("authority", [B2C, ADFS])
def test_continuous_access_evaluation_is_recommended_where_there_is_any(authority: str) -> None:
    """Neither Azure AD B2C nor AD FS has it."""
    given: dict[str, Any] = {"flows": ("web_app",), "verifies_tokens": True}
    assert {each.code for each in found_by("challenges", Patient(Setup(authority=ENTRA, **given)))} == {
        "cp1_not_declared",
        "xms_cc_not_requested",
    }
    assert found_by("challenges", Patient(Setup(authority=authority, **given))) == []


@pytest.mark.parametrize(
    ("authority", "code"), [(ENTRA, "backed_up"), (ADFS, "not_backed_up"), (CHINA, "not_backed_up")]
)
def test_entras_backup_is_of_entra(authority: str, code: str) -> None:
    """AD FS runs in the owner's own house, and the cloud in China has none."""
    (found,) = found_by("backup", Patient(Setup(flows=("native",), authority=authority)))
    assert (found.code, found.rule) == (code, "G27")
