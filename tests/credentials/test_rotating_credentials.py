"""Certificates and secrets are replaced while an application runs, and a wrong one harms nobody."""

from __future__ import annotations

import asyncio
import copy
import logging
import os
import pickle
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import issued
import pytest
from cryptography.hazmat.primitives.serialization import load_pem_private_key

import resilient_auth as ra
from resilient_auth import events, msal
from resilient_auth._msal.rotation.client import Signers
from resilient_auth._process.small_file import read_anew
from resilient_auth.emulator import Emulator
from resilient_auth.testing import capture_events

SCOPE = "api://orders/.default"
Build = Callable[..., Any]


def replace(path: Path, content: bytes) -> None:
    """Put another file in a file's place, in one step."""
    new = path.with_suffix(".new")
    new.write_bytes(content)
    new.rename(path)


def ask(app: Any, name: str = SCOPE) -> dict[str, Any]:
    """Ask for a token that isn't held."""
    app.remove_tokens_for_client()
    result: dict[str, Any] = app.acquire_token_for_client([name])
    return result


def exchanges(idp: Emulator) -> int:
    return len([call for call in idp.ledger.calls if call.endpoint == "token"])


@pytest.fixture
def pem(tmp_path: Path) -> Path:
    path = tmp_path / "app.pem"
    path.write_bytes(issued.issue(0).pem())
    return path


class TestACertificateFile:
    def test_the_next_exchange_uses_the_certificate_that_was_put_in_its_place(
        self, idp: Emulator, app_at: Build, pem: Path
    ) -> None:
        first, second = issued.issue(0), issued.issue(1)
        idp.register("daemon", certificates=[first.shown, second.shown])
        app = app_at(idp, client_credential=pem)
        with capture_events() as told:
            assert "access_token" in ask(app)
            replace(pem, second.pem())
            idp.register("daemon", certificates=[second.shown])
            assert "access_token" in ask(app)
            (rotated,) = told.wait_for(events.CredentialRotated)
        assert (rotated.client_id, rotated.authority) == ("daemon", idp.url)
        assert str(pem) in rotated.target
        assert rotated.expires == second.certificate.not_valid_after_utc.strftime("%Y-%m-%dT%H:%M:%SZ")
        assert exchanges(idp) == 2

    def test_a_certificate_that_the_provider_refuses_leaves_the_old_one_in_use_within_one_exchange(
        self, idp: Emulator, app_at: Build, pem: Path, clock: Any, caplog: pytest.LogCaptureFixture
    ) -> None:
        first, second = issued.issue(0), issued.issue(1)
        idp.register("daemon", certificates=[first.shown])
        app = app_at(idp, client_credential=pem)
        assert "access_token" in ask(app)
        replace(pem, second.pem())
        with capture_events() as told, caplog.at_level(logging.WARNING, "resilient_auth"):
            assert "access_token" in ask(app)
            assert exchanges(idp) == 3
            (rejected,) = told.wait_for(events.CredentialRejected)
            assert (rejected.code, rejected.target) == ("invalid_client", f"certificate file {pem}")
            # It is left alone for a minute: a directory knows a new certificate only after a while.
            assert "access_token" in ask(app)
            assert exchanges(idp) == 4
            clock.skip(61)
            idp.register("daemon", certificates=[first.shown, second.shown])
            assert "access_token" in ask(app)
            told.wait_for(events.CredentialRotated)
        assert len(told.of(events.CredentialRejected)) == 1
        assert any("The new credential of application daemon" in record.message for record in caplog.records)

    def test_an_old_one_that_is_refused_in_that_minute_gives_way_to_the_new_one(
        self, idp: Emulator, app_at: Build, pem: Path
    ) -> None:
        first, second = issued.issue(0), issued.issue(1)
        idp.register("daemon", certificates=[first.shown])
        app = app_at(idp, client_credential=pem)
        ask(app)
        replace(pem, second.pem())
        ask(app)
        idp.register("daemon", certificates=[second.shown])
        assert "access_token" in ask(app)

    def test_where_neither_is_taken_the_denial_is_that_of_the_new_one(
        self, idp: Emulator, app_at: Build, pem: Path
    ) -> None:
        idp.register("daemon", certificates=[issued.issue(0).shown])
        app = app_at(idp, client_credential=pem)
        ask(app)
        replace(pem, issued.issue(1).pem())
        idp.register("daemon", certificates=[issued.issue(2).shown])
        assert ask(app)["error"] == "invalid_client"

    @pytest.mark.parametrize("what", ["cut", "gone", "empty", "other_key", "pipe"])
    def test_a_file_that_cannot_be_used_leaves_the_old_certificate_in_use(
        self, idp: Emulator, app_at: Build, pem: Path, what: str
    ) -> None:
        first, second = issued.issue(0), issued.issue(1)
        idp.register("daemon", certificates=[first.shown, second.shown])
        app = app_at(idp, client_credential=pem)
        ask(app)
        whole = second.pem()
        match what:
            case "cut":
                replace(pem, whole[:700])
            case "gone":
                pem.unlink()
            case "empty":
                replace(pem, b"")
            case "other_key":
                replace(pem, first.pem().replace(first.shown, b"") + second.shown)
            case "pipe":
                pem.unlink()
                os.mkfifo(pem)
        with capture_events() as told:
            assert "access_token" in ask(app)
            assert "access_token" in ask(app)
            told.wait_for(events.CredentialRejected)
            if what == "pipe":
                pem.unlink()
            replace(pem, whole)
            assert "access_token" in ask(app)
            told.wait_for(events.CredentialRotated)
        (rejected,) = told.of(events.CredentialRejected)
        assert rejected.code in ("malformed", "unreadable", "mismatched")
        assert "BEGIN" not in str(list(told))

    def test_the_same_certificate_written_anew_is_no_news(self, idp: Emulator, app_at: Build, pem: Path) -> None:
        """Nor with another passphrase, or in another form."""
        one = issued.issue(0)
        idp.register("daemon", certificates=[one.shown])
        app = app_at(idp, client_credential=ra.CertificateFile(pem, passphrase="open sesame"))
        with capture_events() as told:
            for content in (one.pem(), one.pem(b"open sesame"), one.pfx(b"open sesame")):
                replace(pem, content)
                assert "access_token" in ask(app)
            told.wait_for(events.TokenAcquired, count=3)
        assert not told.of(events.CredentialRotated)
        assert exchanges(idp) == 3

    def test_one_assertion_is_signed_for_many_exchanges(self, idp: Emulator, app_at: Build, pem: Path) -> None:
        """As MSAL has it: signing is what an exchange costs this process most."""
        sent: list[str] = []
        idp.register("daemon", certificates=[issued.issue(0).shown])
        app = app_at(idp, client_credential=pem)
        app._ra_bind()
        client, told = app.client, app.client._ra_signers
        for _ in range(3):
            (given,) = client._ra_rotation.candidates()
            sent.append(told.find(given, None)[0]())
        assert len(set(sent)) == 1

    def test_after_a_denial_the_next_call_uses_what_was_put_in_its_place(
        self, idp: Emulator, app_at: Build, pem: Path
    ) -> None:
        idp.register("daemon", certificates=[issued.issue(1).shown])
        app = app_at(idp, client_credential=pem)
        assert app.acquire_token_for_client([SCOPE])["error"] == "invalid_client"
        replace(pem, issued.issue(1).pem())
        assert "access_token" in app.acquire_token_for_client([SCOPE])

    def test_a_directory_swapped_under_links_is_noticed(self, idp: Emulator, app_at: Build, tmp_path: Path) -> None:
        """So Kubernetes replaces what it mounts: ..data leads to another directory."""
        first, second = issued.issue(0), issued.issue(1)
        for number, one in enumerate((first, second)):
            directory = tmp_path / f"..{number}"
            directory.mkdir()
            (directory / "tls.pem").write_bytes(one.pem())
        (tmp_path / "..data").symlink_to("..0")
        (tmp_path / "tls.pem").symlink_to("..data/tls.pem")
        idp.register("daemon", certificates=[first.shown])
        app = app_at(idp, client_credential=tmp_path / "tls.pem")
        ask(app)
        (tmp_path / "..next").symlink_to("..1")
        (tmp_path / "..next").rename(tmp_path / "..data")
        idp.register("daemon", certificates=[second.shown])
        assert "access_token" in ask(app)

    @pytest.mark.parametrize("kind", ["pem", "pfx"])
    @pytest.mark.parametrize("how", ["string", "bytes", "file"])
    def test_a_passphrase_may_be_text_or_a_file(
        self, idp: Emulator, app_at: Build, tmp_path: Path, kind: str, how: str
    ) -> None:
        one, path, words = issued.issue(0), tmp_path / "app.file", tmp_path / "passphrase"
        path.write_bytes(one.pem(b"open sesame") if kind == "pem" else one.pfx(b"open sesame"))
        words.write_text("open sesame\n")
        given: Any = {"string": "open sesame", "bytes": b"open sesame", "file": words}[how]
        idp.register("daemon", certificates=[one.shown])
        app = app_at(idp, client_credential=ra.CertificateFile(path, passphrase=given))
        assert "access_token" in ask(app)

    def test_a_key_may_have_a_file_of_its_own(self, idp: Emulator, app_at: Build, tmp_path: Path) -> None:
        """As in a TLS Secret of Kubernetes; between its two writes the old certificate goes on."""
        first, second = issued.issue(0), issued.issue(1)
        shown, private = tmp_path / "tls.crt", tmp_path / "tls.key"

        def write(path: Path, one: issued.Issued) -> None:
            replace(path, one.shown if path is shown else one.pem().replace(one.shown, b""))

        write(shown, first)
        write(private, first)
        idp.register("daemon", certificates=[first.shown, second.shown])
        app = app_at(idp, client_credential=ra.CertificateFile(shown, private_key=private))
        with capture_events() as told:
            ask(app)
            write(shown, second)
            assert "access_token" in ask(app)
            assert told.wait_for(events.CredentialRejected)[0].code == "mismatched"
            write(private, second)
            assert "access_token" in ask(app)
            told.wait_for(events.CredentialRotated)

    def test_several_applications_of_one_file_each_follow_it(
        self, idp: Emulator, second_idp: Emulator, app_at: Build, pem: Path
    ) -> None:
        first, second = issued.issue(0), issued.issue(1)
        for each in (idp, second_idp):
            each.register("daemon", certificates=[first.shown])
        file = ra.CertificateFile(pem)
        apps = app_at(idp, client_credential=file), app_at(second_idp, client_credential=file)
        for app in apps:
            ask(app)
        replace(pem, second.pem())
        # Registered at one of the two: what the other one refuses is its own matter.
        idp.register("daemon", certificates=[second.shown])
        assert all("access_token" in ask(app) for app in apps)

    def test_a_users_refresh_token_and_another_tenant_go_by_the_new_certificate_too(
        self, idp: Emulator, app_at: Build, pem: Path
    ) -> None:
        first, second = issued.issue(0), issued.issue(1)
        idp.register("daemon", certificates=[first.shown])
        idp.add_user("ann@contoso.com")
        app = app_at(idp, client_credential=pem)
        flow = app.initiate_auth_code_flow(["User.Read"], redirect_uri="http://localhost", response_mode="form_post")
        answer = idp.sign_in(flow["auth_uri"], "ann@contoso.com")
        assert "access_token" in app.acquire_token_by_auth_code_flow(flow, answer)
        credential = ra.ResilientCredential(app, additionally_allowed_tenants=["*"])
        assert credential.get_token(SCOPE, tenant_id="fabrikam").token
        replace(pem, second.pem())
        idp.register("daemon", certificates=[second.shown])
        (account,) = app.get_accounts()
        assert "access_token" in app.acquire_token_silent_with_error(["User.Read"], account, force_refresh=True)
        with capture_events() as told:
            assert credential.get_token("api://more/.default", tenant_id="fabrikam").token
            told.wait_for(events.TokenAcquired)
        assert not told.of(events.CredentialRotated)  # it is one client's: told once
        assert "access_token" in app.acquire_token_on_behalf_of("a user's token", [SCOPE])

    def test_threads_that_ask_while_it_is_replaced_all_have_their_tokens(
        self, idp: Emulator, app_at: Build, pem: Path, together: Callable[..., list[Any]]
    ) -> None:
        first, second = issued.issue(0), issued.issue(1)
        idp.register("daemon", certificates=[first.shown, second.shown])
        app, numbers, lock = app_at(idp, client_credential=pem), iter(range(100)), threading.Lock()
        ask(app)

        def one() -> Any:
            with lock:
                number = next(numbers)
            if number == 3:
                replace(pem, second.pem())
            return app.acquire_token_for_client([f"api://{number}/.default"])

        with capture_events() as told:
            assert all("access_token" in result for result in together(8, one))
            ask(app)
            told.wait_for(events.CredentialRotated)
        assert len(told.of(events.CredentialRotated)) == 1

    @pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
    def test_a_forked_child_follows_the_file_too(self, idp: Emulator, app_at: Build, pem: Path) -> None:
        first, second = issued.issue(0), issued.issue(1)
        idp.register("daemon", certificates=[first.shown])
        app = app_at(idp, client_credential=pem)
        ask(app)
        replace(pem, second.pem())
        idp.register("daemon", certificates=[second.shown])
        child = os.fork()
        if child == 0:
            os._exit(0 if "access_token" in app.acquire_token_for_client(["api://child/.default"]) else 1)
        assert os.waitpid(child, 0)[1] == 0

    def test_tasks_have_it_too(self, idp: Emulator, app_at: Build, pem: Path) -> None:
        first, second = issued.issue(0), issued.issue(1)
        idp.register("daemon", certificates=[first.shown])
        app = ra.aio.wrap(app_at(idp, client_credential=pem))

        async def run() -> None:
            assert "access_token" in await app.acquire_token_for_client([SCOPE])
            replace(pem, second.pem())
            idp.register("daemon", certificates=[second.shown])
            assert "access_token" in await app.acquire_token_for_client(["api://more/.default"])

        asyncio.run(run())

    def test_an_application_that_starts_in_an_outage_has_it_when_the_provider_is_up(
        self, idp: Emulator, app_at: Build, pem: Path
    ) -> None:
        from resilient_auth.emulator import Fault

        idp.register("daemon", certificates=[issued.issue(0).shown])
        fault = idp.fail(Fault.status(503))
        app = app_at(idp, client_credential=pem)
        fault.stop()
        assert "access_token" in ask(app)


class TestSecrets:
    def test_no_key_passphrase_secret_or_assertion_is_told(
        self, idp: Emulator, app_at: Build, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        """With every logger at DEBUG, through a rotation, a refusal, files that can't be used and a denial."""
        first, second, path = issued.issue(0), issued.issue(1), tmp_path / "app.pfx"
        path.write_bytes(first.pfx(b"open sesame"))
        assertions: set[str] = set()
        find = Signers.find

        def noting(signers: Signers, *args: Any) -> Any:
            assertion, body = find(signers, *args)
            assertions.add(assertion().decode())
            return assertion, body

        idp.register("daemon", certificates=[first.shown])
        said: list[str] = []
        with caplog.at_level(logging.DEBUG), capture_events() as told, pytest.MonkeyPatch.context() as patch:
            patch.setattr(Signers, "find", noting)
            app = app_at(idp, client_credential=ra.CertificateFile(path, passphrase="open sesame"))
            for content in (None, second.pfx(b"open sesame"), second.pfx(b"other words"), b"0 broken", b""):
                if content is not None:
                    replace(path, content)
                said.append(repr(ask(app)["token_type"]))
            idp.register("daemon", certificates=[])
            said.append(repr(ask(app)))
            said.append(repr(vars(app)["_ra_rotation"]) + repr(app.client) + repr(app))
            told.wait_for(events.CredentialRejected, count=3)
        lines = "\n".join([*said, *(record.getMessage() for record in caplog.records), *map(repr, told), caplog.text])
        number = format(second.private.private_numbers().d, "x")
        assert len(assertions) > 1
        for secret in (*assertions, *(one.rpartition(".")[2] for one in assertions), "open sesame", "other words",
                       "PRIVATE KEY", number):  # fmt: skip
            assert secret not in lines


class TestASmallFile:
    def test_two_writes_in_one_tick_of_the_file_systems_clock_are_told_apart(self, tmp_path: Path) -> None:
        """In place, of one size: what `stat` shows may be the same."""
        path = tmp_path / "token"
        path.write_bytes(b"0000")
        known = read_anew(str(path), 10)
        for number in range(300):
            path.write_bytes(b"%04d" % number)
            known = read_anew(str(path), 10, known)
            assert known.data == b"%04d" % number

    def test_one_that_has_not_changed_for_a_while_is_not_read_again(self, tmp_path: Path) -> None:
        path = tmp_path / "token"
        path.write_bytes(b"0000")
        os.utime(path, (1, 1))
        known = read_anew(str(path), 10)
        assert read_anew(str(path), 10, known) is known
        path.write_bytes(b"0001")
        os.utime(path, (1, 1))
        assert read_anew(str(path), 10, known).data == b"0001"


class TestItsEnd:
    @pytest.mark.parametrize(("days", "marks"), [(90, 0), (59, 1), (20, 1), (0.5, 1), (-1, 1)])
    def test_the_owner_is_warned_once_a_mark(
        self, idp: Emulator, app_at: Build, tmp_path: Path, days: float, marks: int
    ) -> None:
        path = tmp_path / "app.pem"
        path.write_bytes(issued.issue(0, days=max(days, -0.9)).pem())
        with capture_events() as told:
            app = app_at(idp, client_credential=path)
            ask(app)
            ask(app)
            told.wait_for(events.TokenAcquired, count=2)
        found = told.of(events.CredentialExpiring)
        assert len(found) == marks
        assert all(event.target == f"certificate file {path}" for event in found)

    def test_each_mark_is_told_as_time_goes_by(self, idp: Emulator, app_at: Build, tmp_path: Path, clock: Any) -> None:
        path = tmp_path / "app.pem"
        path.write_bytes(issued.issue(0, days=61).pem())
        with capture_events() as told:
            app = app_at(idp, client_credential=path)
            for days in (0, 2, 30, 24, 4, 2):  # 61, 59, 29, 5, 1, past its end
                clock.skip(days * 86400.0)
                ask(app)
            told.wait_for(events.CredentialExpiring, count=5)
        left = [round(event.remaining / 86400.0) for event in told.of(events.CredentialExpiring)]
        assert left == [59, 29, 5, 1, -1]


class TestAFunction:
    def test_its_secret_is_asked_for_at_each_exchange_and_a_wrong_one_is_not_used(
        self, idp: Emulator, app_at: Build
    ) -> None:
        current = ["first-secret"]
        idp.register("daemon", secrets=["first-secret", "second-secret"])
        with capture_events() as told:
            app = app_at(idp, client_credential=lambda: current[0])
            assert "access_token" in ask(app)
            current[0] = "mistyped-secret"
            assert "access_token" in ask(app)
            current[0] = "second-secret"
            assert "access_token" in ask(app)
            told.wait_for(events.CredentialRotated)
        (rejected,) = told.of(events.CredentialRejected)
        assert (rejected.code, rejected.target) == ("invalid_client", "the client_credential function")
        assert "secret" not in str(list(told)).replace("mistyped", "").replace("client_secret", "")

    def test_it_may_give_what_msal_takes_as_a_dict(self, idp: Emulator, app_at: Build) -> None:
        one = issued.issue(0, days=10)
        key = one.pem().replace(one.shown, b"").decode()
        idp.register("daemon", certificates=[one.shown])
        with capture_events() as told:
            app = app_at(idp, client_credential=lambda: {"private_key": key, "public_certificate": one.shown.decode()})
            assert "access_token" in ask(app)
            told.wait_for(events.CredentialExpiring)

    def test_what_comes_anew_each_time_is_no_rotation(self, idp: Emulator, app_at: Build) -> None:
        """Assertions, and keys that were read again."""
        one = issued.issue(0)
        idp.register("daemon", certificates=[one.shown])
        numbers = iter(range(100))
        shown = one.shown.decode()
        for given in (
            lambda: {"private_key": load_pem_private_key(one.pem(), None), "public_certificate": shown},
            lambda: {"client_assertion": lambda: f"assertion {next(numbers)}"},
        ):
            app = app_at(idp, client_credential=given)
            with capture_events() as told:
                for _ in range(3):
                    ask(app)
            assert not told.of(events.CredentialRotated)
        assert exchanges(idp) == 6

    def test_one_that_raises_leaves_the_old_secret_in_use(self, idp: Emulator, app_at: Build) -> None:
        answers: list[Any] = ["s3cret-of-now"]

        def current() -> Any:
            if isinstance(answers[0], Exception):
                raise answers[0]
            return answers[0]

        idp.register("daemon", secrets=["s3cret-of-now"])
        app = app_at(idp, client_credential=current)
        with capture_events() as told:
            ask(app)
            for wrong in (KeyError("vault: s3cret-of-now"), b"bytes", None, ""):
                answers[0] = wrong
                assert "access_token" in ask(app)
            told.wait_for(events.CredentialRejected, count=3)
        assert "s3cret" not in str(list(told))
        assert [event.code for event in told.of(events.CredentialRejected)][:2] == ["failed", "malformed"]

    def test_one_that_hangs_is_named_and_holds_up_no_other_application(self, idp: Emulator, app_at: Build) -> None:
        goes_on = threading.Event()

        def hangs() -> str:
            goes_on.wait(20)
            return "s3cret"

        app, other = app_at(idp, client_credential=hangs), app_at(idp)
        ask(other)
        try:
            with ra.wait_at_most(0.2), pytest.raises(ra.AcquisitionTimeout, match="client_credential function"):
                app.acquire_token_for_client([SCOPE])
            for number in range(40):
                with ra.wait_at_most(0.001), pytest.raises(ra.ProviderUnavailable):
                    app.acquire_token_for_client([f"api://{number}/.default"])
            with ra.wait_at_most(2.0):
                assert "access_token" in other.acquire_token_for_client(["api://other/.default"])
        finally:
            goes_on.set()


class TestBadInput:
    @pytest.mark.parametrize("what", ["missing", "garbage", "no_key", "no_certificate", "locked", "elliptic", "large"])
    def test_a_file_that_cannot_be_used_is_named_at_construction(
        self, idp: Emulator, app_at: Build, tmp_path: Path, what: str
    ) -> None:
        one, path = issued.issue(0), tmp_path / "app.pem"
        content = {
            "garbage": b"neither",
            "no_key": one.shown,
            "no_certificate": one.pem().replace(one.shown, b""),
            "locked": one.pem(b"open sesame"),
            "elliptic": issued.issue(private=issued.elliptic_key()).pem(),
            "large": one.pem() + b"#" * (1 << 20),
        }.get(what)
        if content is not None:
            path.write_bytes(content)
        with pytest.raises(ra.ConfigurationError, match=r"client_credential: certificate file .*app\.pem") as caught:
            app_at(idp, client_credential=path)
        assert "PRIVATE" not in str(caught.value)
        assert not idp.ledger.calls

    @pytest.mark.parametrize("passphrase", [None, "another one"])
    def test_a_wrong_passphrase_is_told(
        self, idp: Emulator, app_at: Build, tmp_path: Path, passphrase: str | None
    ) -> None:
        path = tmp_path / "app.pfx"
        path.write_bytes(issued.issue(0).pfx(b"open sesame"))
        with pytest.raises(ra.ConfigurationError, match="passphrase") as caught:
            app_at(idp, client_credential=ra.CertificateFile(path, passphrase=passphrase))
        assert "another one" not in str(caught.value).replace("or another one", "")

    def test_functions_that_cannot_be_called_are_named(self, idp: Emulator, app_at: Build) -> None:
        async def later() -> str:
            return "s3cret"

        for wrong, said in ((later, "coroutine"), (lambda vault, name: "s", "needs vault, name")):
            with pytest.raises(ra.ConfigurationError, match=f"client_credential .*{said}"):
                app_at(idp, client_credential=wrong)

    def test_what_is_no_credential_is_named(self, idp: Emulator, app_at: Build) -> None:
        for wrong in (3, ["secret"], True, object()):
            with pytest.raises(ra.ConfigurationError, match="client_credential must be"):
                app_at(idp, client_credential=wrong)
        assert not idp.ledger.calls

    def test_an_assertion_is_not_taken_for_a_secret(self, idp: Emulator, app_at: Build, tmp_path: Path) -> None:
        with pytest.raises(ra.ConfigurationError, match=r'write client_credential=\{"client_assertion"'):
            app_at(idp, client_credential=ra.assertion_from_file(tmp_path / "token"))

    def test_the_first_secret_must_be_one(self, idp: Emulator, app_at: Build) -> None:
        with pytest.raises(ra.ConfigurationError, match=r"client_credential function can.t be used.*returned bytes"):
            ask(app_at(idp, client_credential=lambda: b"s3cret"))
        assert not exchanges(idp)

    def test_certificate_file_wants_a_path(self) -> None:
        for wrong in (None, b"/a", 3, ""):
            with pytest.raises(ra.ConfigurationError, match="path must be"):
                ra.CertificateFile(wrong)  # type: ignore[arg-type]
        with pytest.raises(ra.ConfigurationError, match="private_key must be"):
            ra.CertificateFile("/a", private_key=b"-----BEGIN")  # type: ignore[arg-type]
        with pytest.raises(ra.ConfigurationError, match="passphrase must be"):
            ra.CertificateFile("/a", passphrase=3)  # type: ignore[arg-type]

    def test_it_has_no_secret_in_its_text_and_is_not_pickled(self, pem: Path) -> None:
        file = ra.CertificateFile(pem, passphrase="open sesame")
        assert repr(file) == f"CertificateFile({str(pem)!r})"
        with pytest.raises(TypeError, match="make one in each process"):
            pickle.dumps(file)


class TestWhatMsalTakes:
    def test_a_string_and_a_dict_are_msals_as_before(self, idp: Emulator, app_at: Build) -> None:
        one = issued.issue(0)
        idp.register("daemon", secrets=["plain"], certificates=[one.shown])
        key = one.pem().replace(one.shown, b"").decode()
        plain = {"private_key": key, "public_certificate": one.shown.decode()}
        for given in ("plain", copy.deepcopy(plain)):
            app = app_at(idp, client_credential=given)
            assert app.client_credential == given
            assert app._ra_rotation is None
            assert "access_token" in ask(app)

    def test_msal_still_refuses_a_public_clients_credential(self, pem: Path) -> None:
        with pytest.raises(ValueError, match=r"[Pp]ublic"):
            msal.PublicClientApplication("app", client_credential=pem)
