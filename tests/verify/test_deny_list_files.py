"""The deny-list: ids in whatever spelling, files with mistakes, and a file that is looked at before it judges."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import threading
import time
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

import pytest
from arriving import AUDIENCE, NOWHERE, TENANT, Signer
from hypothesis import given
from hypothesis import strategies as st

import resilient_auth as ra
from resilient_auth.events import DenyListRejected
from resilient_auth.testing import capture_events
from resilient_auth.verify import DenyList, KeyOptions
from resilient_auth.verify.keys.documents import read_owners

Claims = Callable[..., dict[str, Any]]

ANN = "6f6e2c3a-0b7e-4a53-9a3e-5d0b8d7a6f10"
SPELLINGS: tuple[Callable[[str], str], ...] = (
    str,
    str.upper,
    lambda guid: f"{{{guid}}}",
    lambda guid: f"({guid.upper()})",
    lambda guid: guid.replace("-", ""),
    lambda guid: f" {guid}\t\n",
    lambda guid: f"\ufeff{guid}\u200b",
    lambda guid: f"  {{{guid.upper()}}} ",
    lambda guid: f"urn:uuid:{guid}",
)
IDS = st.uuids().map(str) | st.text("abcAB-_. {}()0123456789", min_size=1, max_size=12).filter(
    lambda text: text.strip() and text.strip()[0] != "{" and text.strip()[-1] != "}"
)


def code_of(verifier: ra.ClaimsVerifier, token: str, **asked: Any) -> str:
    try:
        verifier.verify(token, **asked)
    except (ra.InvalidToken, ra.VerificationUnavailable) as error:
        return error.code
    return ""


class TestSpellings:
    @pytest.mark.parametrize("listed", range(len(SPELLINGS)))
    @pytest.mark.parametrize("told", [0, 1])
    def test_a_guid_denies_in_any(
        self, offline: Any, signer: Signer, claims: Claims, listed: int, told: int, tmp_path: Path
    ) -> None:
        """On the list's side and on the token's, given in code and in a file."""
        entry, carried = SPELLINGS[listed](ANN), SPELLINGS[told](ANN)
        file = tmp_path / "denied.json"
        file.write_text(json.dumps({"oids": [entry]}))
        token = signer.token(claims(oid=carried))
        assert code_of(offline(deny=DenyList(oids=[entry])), token) == "denied"
        assert code_of(offline(deny=DenyList(file=file)), token) == "denied"
        deny = DenyList(sids=[entry], oids=[entry], token_ids=[entry], kids=[entry])
        deny.remove(oids=[carried])
        verifier = offline(deny=deny)
        assert code_of(verifier, token) == ""
        assert code_of(verifier, signer.token(claims(sid=carried))) == "denied"
        assert code_of(verifier, signer.token(claims(jti=carried))) == "denied"

    @given(listed=IDS, other=IDS, spelt=st.sampled_from(SPELLINGS))
    def test_only_what_is_meant_is_denied(self, listed: str, other: str, spelt: Callable[[str], str]) -> None:
        """Whatever the spelling, an id denies itself; and no other one, case included where it isn't a GUID."""
        try:
            guid: str | None = str(uuid.UUID(listed))
        except ValueError:
            guid = None
        entry = spelt(listed) if guid == listed else listed
        current = DenyList(oids=[entry]).current
        assert current.match(None, (listed,), None, ()) == "oid"
        if listed.strip() != other.strip() and listed.replace("-", "").lower() != other.replace("-", "").lower():
            assert current.match("k", (other, None), other, (other, 1, ["x"], {"a": 1})) == ""


class TestMistakes:
    @pytest.mark.parametrize(
        ("entry", "says"),
        [
            ('""', "blank"), ('" \\t"', "blank"), ('"\\ufeff"', "blank"),
            ("7", "strings, not int"), ("null", "strings"),
            ('["a"]', "strings"), ('"{6f6e2c3a}"', "braces"), ('"\\ud800secret"', "no text"),
            (json.dumps("secret" * 6000), "36000 characters"),
        ],
    )  # fmt: skip
    def test_an_entry_that_no_token_could_have(self, tmp_path: Path, entry: str, says: str) -> None:
        """Is refused with its line, since it would deny nobody; the message doesn't quote it."""
        file = tmp_path / "denied.json"
        file.write_text('{"kids": ["a",\n "b"],\n "oids": [\n  "c",\n\n  ' + entry + ', "secret"]}')
        with pytest.raises(ra.ConfigurationError, match=f"line 6: oids.*{says}") as caught:
            DenyList(file=file)
        assert "secret" not in str(caught.value)

    def test_a_kid_that_is_too_long(self, tmp_path: Path) -> None:
        """No token with such a one is looked at."""
        file = tmp_path / "denied.json"
        file.write_text(json.dumps({"kids": ["k" * 257]}))
        with pytest.raises(ra.ConfigurationError, match="line 1: kids"):
            DenyList(file=file)
        DenyList(oids=["o" * 257], kids=["k" * 256])

    def test_a_name_that_is_there_twice(self, tmp_path: Path) -> None:
        """One of the two would silently count for nothing."""
        file = tmp_path / "denied.json"
        file.write_text('{"oids": ["ann"], "oids": []}')
        with pytest.raises(ra.ConfigurationError, match="twice"):
            DenyList(file=file)

    @pytest.mark.parametrize("wrong", [" ", "{x}", "k" * 40_000, "\ud800"])
    def test_in_code(self, wrong: str) -> None:
        """By the argument's name, in each way to add one; `remove` tells too."""
        for call in (DenyList, DenyList().add, DenyList().remove):
            with pytest.raises(ra.ConfigurationError, match="oids"):
                call(oids=[wrong])

    def test_a_file_that_went_wrong_says_where(
        self, offline: Any, signer: Signer, claims: Claims, tmp_path: Path, clock: Any
    ) -> None:
        """In its event; what was read last holds."""
        file = tmp_path / "denied.json"
        file.write_text(json.dumps({"oids": [ANN]}))
        verifier, token = offline(deny=DenyList(file=file)), signer.token(claims(oid=ANN))
        assert code_of(verifier, token) == "denied"
        file.write_text('{"oids":\n [3]}')
        clock.skip(6.0)
        with capture_events() as events:
            assert code_of(verifier, token) == "denied"
            (told,) = events.wait_for(DenyListRejected)
        assert told.code == "malformed"
        assert "line 2" in told.detail


class TestBeforeItJudges:
    @pytest.fixture
    def file(self, tmp_path: Path) -> Path:
        file = tmp_path / "denied.json"
        file.write_text("{}")
        return file

    def test_the_first_call_after_a_pause(
        self, offline: Any, signer: Signer, claims: Claims, file: Path, clock: Any
    ) -> None:
        """Is judged by what the file says then, whether its token was seen before or not."""
        verifier = offline(deny=DenyList(file=file))
        seen, new = signer.token(claims(oid=ANN)), signer.token(claims(oid=ANN, uti="new"))
        assert code_of(verifier, seen) == ""
        clock.skip(3600.0 - 120.0)
        file.write_text(json.dumps({"oids": [ANN]}))
        assert code_of(verifier, seen) == "denied"
        file.write_text("{}")
        clock.skip(3.0)  # of the 5 s between two looks; real time passes as well
        assert code_of(verifier, seen) == "denied"
        clock.skip(2.1)
        assert code_of(verifier, new) == ""
        assert code_of(verifier, seen) == ""
        file.write_text(json.dumps({"oids": [ANN]}))
        clock.skip(5.1)
        assert code_of(verifier, new) == "denied"

    def test_the_first_call_of_a_verifier(self, offline: Any, signer: Signer, claims: Claims, file: Path) -> None:
        """A list may have been made long before it."""
        deny = DenyList(file=file)
        file.write_text(json.dumps({"oids": [ANN]}))
        assert code_of(offline(deny=deny), signer.token(claims(oid=ANN))) == "denied"

    def test_all_who_come_at_once(
        self, offline: Any, signer: Signer, claims: Claims, file: Path, clock: Any, together: Any
    ) -> None:
        """Wait for the one look that there is: none of them is judged by the old list."""
        verifier, token = offline(deny=DenyList(file=file)), signer.token(claims(oid=ANN))
        assert code_of(verifier, token) == ""
        for _ in range(5):
            file.write_text(json.dumps({"oids": [ANN], "sids": [str(n) for n in range(20_000)]}))
            clock.skip(6.0)
            assert together(20, lambda: code_of(verifier, token)) == ["denied"] * 20
            file.write_text("{}")
            clock.skip(6.0)
            assert together(20, lambda: code_of(verifier, token)) == [""] * 20

    def test_another_file_of_the_same_size_and_time(
        self, offline: Any, signer: Signer, claims: Claims, file: Path, clock: Any
    ) -> None:
        """As a script that keeps times leaves it."""
        file.write_text(json.dumps({"oids": [ANN[:-1] + "1"]}))
        was = os.stat(file)
        verifier, token = offline(deny=DenyList(file=file)), signer.token(claims(oid=ANN))
        assert code_of(verifier, token) == ""
        file.write_text(json.dumps({"oids": [ANN]}))
        os.utime(file, ns=(was.st_atime_ns, was.st_mtime_ns))
        clock.skip(6.0)
        assert code_of(verifier, token) == "denied"

    def test_a_file_that_didnt_change_isnt_read(
        self, file: Path, eventually: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Once it is old enough for its times to tell it from another one."""
        reads: list[str] = []

        def reading(path: str, most: int) -> bytes:
            reads.append(path)
            return read_owners(path, most)

        monkeypatch.setattr("resilient_auth.verify.deny.read_owners", reading)
        deny = DenyList(file=file)

        def is_known() -> bool:
            before = len(reads)
            deny.look()
            return len(reads) == before

        eventually(is_known)
        file.write_text('{"oids": ["ann"]}')
        assert deny.look()
        assert not deny.look()

    def test_nobody_waits_where_there_is_traffic(
        self, offline: Any, signer: Signer, claims: Claims, file: Path, clock: Any, eventually: Any
    ) -> None:
        """A look begins a little ahead of the time at which a call would have to wait for it."""
        # So that the real time that passes as well brings no call to it.
        verifier = offline(deny=DenyList(file=file, look_every=100.0))
        token = signer.token(claims(oid=ANN))
        assert code_of(verifier, token) == ""
        file.write_text(json.dumps({"oids": [ANN]}))
        clock.skip(60.0)
        assert code_of(verifier, token) == ""
        clock.skip(25.0)
        eventually(lambda: code_of(verifier, token) == "denied")

    async def test_a_file_system_that_hangs_stops_no_loop(
        self,
        signer: Signer,
        claims: Claims,
        file: Path,
        settings: Any,
        clock: Any,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """The look itself is a worker's: a mount whose server is gone answers no `stat`."""
        # That the file is new doesn't have it read at each look.
        monkeypatch.setattr("resilient_auth.verify.deny._SETTLED", -1.0)
        answers = threading.Event()
        stat = os.stat

        def hangs(path: Any, *args: Any, **options: Any) -> os.stat_result:
            if path == str(file):
                answers.wait(10.0)
            return stat(path, *args, **options)

        async with ra.aio.ClaimsVerifier.for_entra(
            TENANT, AUDIENCE, authority=NOWHERE, pinned_keys={"keys": [signer.jwk]}, settings=settings(),
            deny=DenyList(file=file), keys=KeyOptions(wait=30.0),
        ) as verifier:  # fmt: skip
            token, new = signer.token(claims(oid=ANN)), signer.token(claims(oid=ANN, uti="new"))
            await verifier.verify(token)
            monkeypatch.setattr(os, "stat", hangs)
            begun = time.perf_counter()
            clock.skip(4.1)
            for each in (token, new):  # a look is under way, and isn't due
                await verifier.verify(each)
            clock.skip(2.0)
            waiting = [asyncio.create_task(verifier.verify(each)) for each in (token, new)]
            done, _ = await asyncio.wait(waiting, timeout=0.05)
            assert not done
            assert time.perf_counter() - begun < 2.0
            answers.set()
            await asyncio.gather(*waiting)

    def test_a_file_that_hangs(self, offline: Any, signer: Signer, claims: Claims, file: Path, clock: Any) -> None:
        """Holds up a call for its patience, once an interval: then what was read last judges, and that is told."""
        verifier = offline(deny=DenyList(file=file, oids=["mallory"]), keys=KeyOptions(wait=0.05))
        token = signer.token(claims(oid=ANN))
        assert code_of(verifier, token) == ""
        file.unlink()
        os.mkfifo(file)
        clock.skip(6.0)
        with capture_events() as events:
            ends: list[str] = []
            caller = threading.Thread(target=lambda: ends.append(code_of(verifier, token)))
            caller.start()
            while caller.is_alive():
                clock.skip(0.01)
                caller.join(0.01)
            events.wait_for(DenyListRejected)
        assert ends == [""]
        begun = time.perf_counter()
        assert code_of(verifier, token) == ""
        assert code_of(verifier, signer.token(claims(oid="mallory"))) == "denied"
        assert time.perf_counter() - begun < 1.0
        with contextlib.suppress(OSError):  # its reader may have come too late to read at all
            os.close(os.open(file, os.O_WRONLY | os.O_NONBLOCK))

    def test_a_file_that_hangs_is_told_of_once(
        self, offline: Any, signer: Signer, claims: Claims, file: Path, clock: Any
    ) -> None:
        """However many wait for it: the log has a line an interval, and not one a call."""
        verifier = offline(deny=DenyList(file=file), keys=KeyOptions(wait=0.05))
        token = signer.token(claims(oid=ANN))
        assert code_of(verifier, token) == ""
        file.unlink()
        os.mkfifo(file)
        for _ in range(2):
            clock.skip(6.0)
            all_are_here = threading.Barrier(9)

            def call(barrier: threading.Barrier = all_are_here) -> str:
                barrier.wait()
                return code_of(verifier, token)

            with ThreadPoolExecutor(8) as threads, capture_events() as events:
                calls = [threads.submit(call) for _ in range(8)]
                all_are_here.wait()
                while not all(each.done() for each in calls):
                    clock.skip(0.01)
                    wait(calls, 0.01)
                events.wait_for(DenyListRejected)
            assert [each.result() for each in calls] == [""] * 8
            assert len(events.of(DenyListRejected)) == 1
        with contextlib.suppress(OSError):  # its reader may have come too late to read at all
            os.close(os.open(file, os.O_WRONLY | os.O_NONBLOCK))

    async def test_no_loop_waits_for_it(
        self, signer: Signer, claims: Claims, file: Path, settings: Any, clock: Any
    ) -> None:
        """A file that hangs or is long is read on a worker; tasks whose list is current go on meanwhile."""
        deny = DenyList(file=file)
        async with ra.aio.ClaimsVerifier.for_entra(
            TENANT, AUDIENCE, authority=NOWHERE, pinned_keys={"keys": [signer.jwk]}, settings=settings(), deny=deny,
            keys=KeyOptions(wait=30.0),
        ) as verifier:  # fmt: skip
            token = signer.token(claims(oid=ANN))
            await verifier.verify(token)
            file.unlink()
            os.mkfifo(file, 0o600)
            clock.skip(6.0)
            waiting = [asyncio.create_task(verifier.verify(token)) for _ in range(10)]
            for _ in range(20):
                await asyncio.sleep(0.001)
            assert not any(task.done() for task in waiting)

            def write() -> None:
                with open(file, "w") as stream:
                    json.dump({"oids": [ANN]}, stream)

            await asyncio.to_thread(write)
            results = await asyncio.gather(*waiting, return_exceptions=True)
            assert {getattr(result, "code", result) for result in results} == {"denied"}
