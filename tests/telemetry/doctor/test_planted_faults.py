"""Each fault that is planted is found and named, with what mends it, and nothing else is blamed."""

from __future__ import annotations

import contextlib
import datetime
import functools
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import NameOID

from resilient_auth.emulator import Emulator, Fault
from resilient_auth.telemetry.doctor import CHECKS, Finding, Setup, examine, exit_status

Wrong = Callable[..., set[str]]
Diagnose = Callable[..., list[Finding]]


@pytest.fixture
def closed_port() -> Iterator[int]:
    """A port at which nobody listens, kept from others."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        yield held.getsockname()[1]


@functools.cache
def key_number(number: int) -> rsa.RSAPrivateKey:
    """Make a key once; another number is another key."""
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


def certificate(path: Path, days: float, *, another_key: bool = False, mode: int = 0o600) -> str:
    """Write a self-signed certificate and a key that lasts so many days from now."""
    key = key_number(0)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "my-app")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(7)
        .not_valid_before(now - datetime.timedelta(days=400))
        .not_valid_after(now + datetime.timedelta(days=days, hours=1))
        .sign(key, hashes.SHA256())
    )
    if another_key:
        key = key_number(1)
    plain = serialization.NoEncryption()
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain)
    path.write_bytes(pem + made.public_bytes(serialization.Encoding.PEM))
    path.chmod(mode)
    return str(path)


def test_a_healthy_set_up_is_healthy(diagnose: Diagnose) -> None:
    """No warning, no error, nothing left out; and every check that applies has looked."""
    found = diagnose()
    assert {each.severity for each in found} <= {"ok", "note"}
    assert exit_status(found) == 0
    looked = {each.check for each in found}
    assert looked >= {"versions", "proxy", "trust", "name", "port", "tls", "discovery", "clock", "keys", "credential"}
    assert looked >= {"token", "store", "secrets_on_disk", "backup"}


@pytest.mark.parametrize(
    ("fault", "endpoint", "expected"),
    [
        ("refuse", "*", "port error refused"),
        ("tls_failed", "*", "tls error tls_broken"),
        ("black_hole", "discovery", "discovery error provider_fails"),
        ("http_503", "*", "discovery error provider_fails"),
        ("http_503_html", "*", "discovery error provider_fails"),
        ("http_429", "discovery", "discovery error throttled"),
        ("html_200", "*", "discovery error not_the_provider"),
        ("truncated_json", "discovery", "discovery error document_wrong"),
        ("json_object", "jwks", "keys error keys_unusable"),
        ("http_503", "jwks", "keys error provider_fails"),
        ("http_503", "token", "token error provider_fails"),
    ],
)
def test_a_provider_that_fails(idp: Emulator, wrong: Wrong, fault: str, endpoint: str, expected: str) -> None:
    """Is told at the step that fails; what would only repeat it isn't looked at."""
    idp.fail(Fault.all()[fault], endpoint)
    assert wrong(timeout=0.5 if fault == "black_hole" else 2.0) == {expected}


def test_a_tenant_that_is_not_there(idp: Emulator, wrong: Wrong) -> None:
    """The provider works and says so."""
    assert wrong(authority=idp.authority("nonexistent")) == {"discovery error tenant_unknown"}


@pytest.mark.parametrize(
    ("error", "description", "expected"),
    [
        ("invalid_client", "AADSTS7000215: Invalid client secret provided.", "secret_wrong"),
        ("invalid_client", "AADSTS7000222: The provided client secret keys are expired.", "secret_expired"),
        ("unauthorized_client", "AADSTS700016: Application was not found.", "application_unknown"),
        ("invalid_client", "no number", "credential_refused"),
        ("odd_error", "odd", "denied"),
    ],
)
def test_a_token_that_is_denied(idp: Emulator, wrong: Wrong, error: str, description: str, expected: str) -> None:
    """Entra's number says what to mend."""
    idp.deny("client_credentials", error, description, status=401)
    assert wrong() == {f"token error {expected}"}


def test_a_name_that_does_not_exist(wrong: Wrong, resolver: Callable[..., None]) -> None:
    """That is the authority's, or this machine's DNS."""
    resolver("login.example", error=socket.gaierror(socket.EAI_NONAME, "Name or service not known"))
    assert wrong(authority="https://login.example/contoso") == {"name error name_unknown"}


def test_a_name_of_microsofts_that_is_not_found(diagnose: Diagnose, resolver: Callable[..., None]) -> None:
    """It exists, so this machine's DNS is to blame; whatever isn't looked at names the check that found it."""
    resolver("login.microsoftonline.com", error=socket.gaierror(socket.EAI_NONAME, "Name or service not known"))
    found = diagnose(authority="https://login.microsoftonline.com/contoso")
    (error,) = [each for each in found if each.severity == "error"]
    assert (error.code, error.fix) == (
        "name_unknown",
        "mend this machine's DNS: login.microsoftonline.com is Microsoft's, and exists",
    )
    skipped = [each for each in found if each.severity == "skipped"]
    assert [each.check for each in skipped] == ["port", "tls", "discovery", "clock", "keys", "token"]
    assert {each.what for each in skipped} == {"not looked at, because of what name found"}


def test_a_resolver_that_fails(diagnose: Diagnose, resolver: Callable[..., None]) -> None:
    """The provider isn't blamed."""
    resolver("login.example", error=socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution"))
    (found,) = [each for each in diagnose(authority="https://login.example/contoso") if each.severity == "error"]
    assert (found.check, found.code) == ("name", "resolver_fails")
    assert "not to blame" in found.fix


def test_a_resolver_that_hangs(wrong: Wrong, resolver: Callable[..., None]) -> None:
    """It is left alone in time, and the rest is looked at."""
    hangs = threading.Event()
    resolver("login.example", hangs=hangs, error=OSError("late"))
    began = time.monotonic()
    assert wrong(authority="https://login.example/contoso", timeout=0.2) == {"name error timed_out"}
    assert time.monotonic() - began < 5
    hangs.set()


def test_a_firewall_that_swallows(
    wrong: Wrong, resolver: Callable[..., None], swallowing: Callable[[int], int]
) -> None:
    """All of it ends in the time of one check."""
    resolver("login.example", "127.0.0.2")
    port = swallowing(1)
    began = time.monotonic()
    assert wrong(authority=f"https://login.example:{port}/contoso", timeout=0.3) == {"port error no_answer"}
    assert time.monotonic() - began < 5


def test_a_server_that_accepts_and_is_silent(wrong: Wrong) -> None:
    """A connection that is taken says nothing yet."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        assert wrong(authority=f"https://127.0.0.1:{port}/contoso", timeout=0.3) == {"tls error tls_no_answer"}


def test_an_authority_that_is_not_trusted(diagnose: Diagnose) -> None:
    """Who signed the certificate is told: a company's own inspection, or somebody who reads along."""
    (found,) = [each for each in diagnose(verify=True) if each.severity == "error"]
    assert (found.check, found.code) == ("tls", "untrusted")
    assert "trustme" in found.what
    assert "certifi" in found.what


def test_a_certificate_of_another_name(wrong: Wrong, idp: Emulator, resolver: Callable[..., None]) -> None:
    """Something else answers there."""
    resolver("other.example", "127.0.0.1")
    port = idp.url.rpartition(":")[2]
    assert wrong(authority=f"https://other.example:{port}/contoso") == {"tls error certificate_name"}


def test_tls_that_is_not_verified(wrong: Wrong) -> None:
    """It works, and is no less wrong."""
    assert "trust error unverified" in wrong(verify=False)


def test_the_bundle_of_the_environment_is_a_trap(
    diagnose: Diagnose, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, idp: Emulator
) -> None:
    """Plain MSAL trusts the variable's, whatever verify says; the same file by another name is none."""
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", "/etc/ssl/other.pem")
    (found,) = [each for each in diagnose() if each.severity == "warning"]
    assert (found.check, found.code) == ("trust", "bundle_trap")
    (tmp_path / "same.pem").symlink_to(idp.ca_file)
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(tmp_path / "same.pem"))
    assert exit_status(diagnose()) == 0


def test_a_bundle_that_is_not_there(wrong: Wrong, monkeypatch: pytest.MonkeyPatch) -> None:
    """The variable is named."""
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", "/nowhere/at/all.pem")
    assert wrong(verify=True) == {"trust error configuration"}


def test_a_bundle_without_an_authority(wrong: Wrong, tmp_path: Path) -> None:
    """A server's own certificate is none."""
    (tmp_path / "empty.pem").write_text("")
    assert any(one.startswith("trust error") for one in wrong(verify=str(tmp_path / "empty.pem")))


def test_a_proxy_that_nobody_can_use(wrong: Wrong, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its setting is named, and its password isn't."""
    monkeypatch.setenv("HTTPS_PROXY", "ftp://user:a-secret-that-nobody-may-see@proxy.example:3128")
    monkeypatch.setenv("NO_PROXY", "")
    monkeypatch.setenv("no_proxy", "")
    assert wrong() == {"proxy error configuration"}


def test_a_proxy_that_is_gone(diagnose: Diagnose, monkeypatch: pytest.MonkeyPatch, closed_port: int) -> None:
    """The proxy is blamed, and not the provider."""
    monkeypatch.setenv("NO_PROXY", "")
    monkeypatch.setenv("no_proxy", "")
    monkeypatch.setenv("HTTPS_PROXY", f"http://user:a-secret-that-nobody-may-see@127.0.0.1:{closed_port}")
    (found,) = [each for each in diagnose() if each.severity == "error"]
    assert (found.check, found.code) == ("port", "refused")
    assert "the proxy is down" in found.what
    assert "HTTPS_PROXY" in found.fix


def test_a_proxy_that_refuses(diagnose: Diagnose, monkeypatch: pytest.MonkeyPatch) -> None:
    """As where it wants another password: with what it answers."""
    monkeypatch.setenv("NO_PROXY", "")
    monkeypatch.setenv("no_proxy", "")
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def refuse() -> None:
            with contextlib.suppress(OSError):
                while True:
                    connection, _ = listener.accept()
                    with connection:
                        connection.recv(4096)
                        connection.sendall(b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n")

        threading.Thread(target=refuse, daemon=True).start()
        port = listener.getsockname()[1]
        monkeypatch.setenv("HTTPS_PROXY", f"http://user:a-secret-that-nobody-may-see@127.0.0.1:{port}")
        (found,) = [each for each in diagnose() if each.severity == "error"]
    assert "the proxy answers 407" in found.what
    assert "a-secret" not in f"{found.what} {found.fix}"


def test_a_provider_behind_a_proxy_is_healthy(
    diagnose: Diagnose, monkeypatch: pytest.MonkeyPatch, idp: Emulator
) -> None:
    """TLS is looked at through it."""
    monkeypatch.setenv("NO_PROXY", "")
    monkeypatch.setenv("no_proxy", "")
    monkeypatch.setenv("HTTPS_PROXY", idp.proxy_url)
    found = diagnose(authority="https://login.microsoftonline.com/contoso")
    assert exit_status(found) == 0, found
    assert any(each.check == "tls" and each.severity == "ok" for each in found)


def test_proxies_that_differ_by_case(wrong: Wrong, monkeypatch: pytest.MonkeyPatch) -> None:
    """Which one counts depends on the program."""
    monkeypatch.setenv("NO_PROXY", "localhost")
    monkeypatch.setenv("no_proxy", "localhost")
    monkeypatch.setenv("HTTPS_PROXY", "http://one.example:3128")
    monkeypatch.setenv("https_proxy", "http://two.example:3128")
    assert wrong() == {"proxy warning proxies_differ"}


@pytest.mark.parametrize(("seconds", "severity"), [(600.0, "error"), (-600.0, "error"), (90.0, "warning")])
def test_a_clock_that_is_wrong(wrong: Wrong, clock: Any, seconds: float, severity: str) -> None:
    """By the provider's `Date`; this machine's credential is judged by its own clock."""
    clock.set_wall(seconds)
    assert wrong(clock=clock) == {f"clock {severity} clock_wrong"}


@pytest.mark.parametrize(
    ("days", "expected"),
    [
        (200, set()),
        (45, {"credential warning credential_ends"}),
        (5, {"credential error credential_ends"}),
        (-3, {"credential error credential_over"}),
    ],
)
def test_a_certificate_that_runs_out(wrong: Wrong, tmp_path: Path, days: int, expected: set[str]) -> None:
    """It is read from the file that the application reads."""
    assert wrong(certificate=certificate(tmp_path / "app.pem", days), client_secret="") == expected


def test_a_secret_that_runs_out(wrong: Wrong) -> None:
    """On the day that the owner was told."""
    soon = datetime.datetime.now(datetime.UTC).date() + datetime.timedelta(days=4)
    assert wrong(secret_expires=soon) == {"credential error credential_ends"}


def test_a_federated_credential(wrong: Wrong, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The file that the platform mounts is tried; one that isn't there is named."""
    (tmp_path / "token").write_text("a-secret-that-nobody-may-see\n")
    monkeypatch.setenv("AZURE_FEDERATED_TOKEN_FILE", str(tmp_path / "token"))
    assert wrong(client_secret="") == set()
    monkeypatch.setenv("AZURE_FEDERATED_TOKEN_FILE", str(tmp_path / "nowhere"))
    assert wrong(client_secret="") == {"credential error assertion_unreadable"}


def test_a_key_of_another_certificate(wrong: Wrong, tmp_path: Path) -> None:
    """MSAL would sign, and the provider would refuse."""
    file = certificate(tmp_path / "app.pem", 200, another_key=True)
    assert wrong(certificate=file, client_secret="") == {"credential error key_of_another"}


def test_a_certificate_that_is_none(wrong: Wrong, tmp_path: Path) -> None:
    """Neither its text nor a password is quoted."""
    (tmp_path / "app.pem").write_text("a-secret-that-nobody-may-see")
    (tmp_path / "app.pem").chmod(0o600)
    assert wrong(certificate=str(tmp_path / "app.pem")) == {"credential error certificate_unusable"}


def test_a_key_that_others_can_read(wrong: Wrong, tmp_path: Path) -> None:
    """It is disclosed."""
    file = certificate(tmp_path / "app.pem", 200, mode=0o644)
    assert wrong(certificate=file, client_secret="") == {"secrets_on_disk error key_open"}


def test_a_cache_in_the_clear(wrong: Wrong, tmp_path: Path) -> None:
    """MSAL's own serialisation is JSON."""
    (tmp_path / "cache.json").write_text('{"RefreshToken": {}}')
    assert wrong(token_cache=str(tmp_path / "cache.json")) == {"secrets_on_disk error cache_in_clear"}


@pytest.mark.skipif(os.name != "posix", reason="Windows has no such modes")
@pytest.mark.parametrize(
    ("what", "mode"), [("state", 0o777), ("state/tokens.db", 0o644), ("state/tokens.db.key", 0o640)]
)
def test_a_store_that_is_open_to_others(wrong: Wrong, tmp_path: Path, what: str, mode: int) -> None:
    """The directory, the file and its key."""
    (tmp_path / what).chmod(mode)
    assert wrong() == {"store error configuration"}


def test_a_store_that_lost_its_key(wrong: Wrong, tmp_path: Path) -> None:
    """What it holds can't be opened again."""
    (tmp_path / "state" / "tokens.db.key").unlink()
    assert wrong() == {"store warning store_key_missing"}


def test_a_store_in_no_directory(wrong: Wrong, tmp_path: Path) -> None:
    """One that is missing is made; one above it isn't."""
    assert wrong(store=str(tmp_path / "new" / "tokens.db")) == set()
    assert not (tmp_path / "new").exists()
    assert wrong(store=str(tmp_path / "no" / "such" / "tokens.db")) == {"store error store_nowhere"}


def test_a_redis_that_is_gone(wrong: Wrong, closed_port: int) -> None:
    """Its URL's password isn't shown."""
    url = f"redis://:a-secret-that-nobody-may-see@127.0.0.1:{closed_port}/0"
    assert wrong(store=url) == {"store error store_unreachable"}


def test_a_redis_that_evicts(wrong: Wrong, valkey: Any, redis_url: str) -> None:
    """It would sign users out; without that it is healthy."""
    assert wrong(store=redis_url) == set()
    valkey.config_set("maxmemory-policy", "allkeys-lru")
    try:
        assert wrong(store=redis_url) == {"store warning store_evicts"}
    finally:
        valkey.config_set("maxmemory-policy", "noeviction")


def test_a_managed_identity(
    wrong: Wrong, diagnose: Diagnose, idp: Emulator, monkeypatch: pytest.MonkeyPatch, closed_port: int
) -> None:
    """Its endpoint answers, fails, or isn't there."""
    kind = {"authority": "", "flows": ("managed_identity",), "client_secret": "", "client_id": ""}
    monkeypatch.setenv("AZURE_POD_IDENTITY_AUTHORITY_HOST", idp.metadata_url)
    found = diagnose(**kind)
    assert exit_status(found) == 0, found
    assert any(each.check == "managed_identity" and each.severity == "ok" for each in found)
    idp.fail(Fault.http_503(), "managed_identity")
    assert wrong(**kind, timeout=1.0) == {"managed_identity error endpoint_fails"}
    monkeypatch.setenv("AZURE_POD_IDENTITY_AUTHORITY_HOST", f"http://127.0.0.1:{closed_port}")
    assert wrong(**kind) == {"managed_identity error no_endpoint"}


def test_an_old_msal(wrong: Wrong, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As it is found on this path, before the right one."""
    (tmp_path / "msal-1.20.0.dist-info").mkdir()
    told = "Metadata-Version: 2.1\nName: msal\nVersion: 1.20.0\n"
    (tmp_path / "msal-1.20.0.dist-info" / "METADATA").write_text(told)
    monkeypatch.syspath_prepend(tmp_path)
    assert wrong() == {"versions error version_wrong"}


def test_a_setting_that_is_misspelt(diagnose: Diagnose, monkeypatch: pytest.MonkeyPatch) -> None:
    """The nearest name is suggested."""
    monkeypatch.setenv("RESILIENT_AUTH_WIAT", "10")
    (found,) = [each for each in diagnose() if each.severity == "error"]
    assert (found.check, found.code) == ("settings", "configuration")
    assert "did you mean 'RESILIENT_AUTH_WAIT'?" in found.what


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"store": ""}, "persistence warning no_persistence"),
        ({"scopes": (("api://mine/.default",), ("api://mine/x/.default",))}, "scopes warning scopes_dynamic"),
        ({"scopes": (("api://mine/read",),)}, "scopes error scope_not_default"),
        ({"flows": ("password",)}, "grants warning password_grant"),
        ({"client_capabilities": ("CP1",)}, "challenges warning no_challenge_handler"),
        ({"verifies_tokens": True}, "challenges warning xms_cc_not_requested"),
        ({"secrets_in": "here.toml"}, "secrets_on_disk warning secret_in_file"),
    ],
    ids=lambda value: value.rpartition(" ")[2] if isinstance(value, str) else "",
)
def test_what_the_guidance_asks_for(wrong: Wrong, changes: dict[str, Any], expected: str) -> None:
    """Rules G3, G6, G17 and G24, by what the owner says of the application."""
    assert wrong(**changes) == {expected}


@pytest.mark.parametrize(
    ("flow", "authority", "code"),
    [
        ("native", "", "backed_up"),
        ("managed_identity", "", "backed_up"),
        ("client_credentials", "", "not_backed_up"),
        ("native", "https://contoso.b2clogin.com/contoso.onmicrosoft.com/b2c_1_sign_in", "not_backed_up"),
    ],
)
def test_whether_the_provider_backs_a_flow_up(flow: str, authority: str, code: str) -> None:
    """Flow by flow (G27); B2C has none of it."""
    check = next(each for each in CHECKS if each.name == "backup")
    from resilient_auth.telemetry.doctor.patient import Patient

    (found,) = check.run(Patient(Setup(flows=(flow,), authority=authority)))
    assert (found.code, found.rule) == (code, "G27")


def test_a_check_that_breaks_ends_no_other(healthy: Setup, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Its kind is told, and not its text, which may quote what it was given."""

    class Broken:
        def wall(self) -> float:
            raise RuntimeError("a-secret-that-nobody-may-see")

        monotonic = staticmethod(time.monotonic)

    found = list(examine(healthy, clock=Broken()))  # type: ignore[arg-type]
    assert {each.check for each in found if each.code == "check_failed"} >= {"credential"}
    assert found[-1].check == "backup"
    assert "nobody-may-see" not in repr(found)
