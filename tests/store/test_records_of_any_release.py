"""Records that another release has left: whoever reads them says that they can't be used, or goes by what they say.

Nobody who signs in, or whom a provider waits for, sees a `KeyError`; and what says who is shut out isn't passed over.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import pytest
from odd_records import ODD, altered

import resilient_auth as ra
from resilient_auth import verify
from resilient_auth._fleet.records import USERNAMES, Records
from resilient_auth._fleet.user_record import Change, SignIn, StoredToken
from resilient_auth._store.memory import MemoryBackend
from resilient_auth._wire.identity import WireIdentity
from resilient_auth.callouts import BackgroundWrites, Continue, LastKnown, TokenIssuanceStart
from resilient_auth.callouts.last_known import LastClaims
from resilient_auth.callouts.once import Once
from resilient_auth.errors import ResilientAuthError, StoreUnavailable
from resilient_auth.signin.codes import CodeBook, OneTimeCodes
from resilient_auth.signin.flows import Flows
from resilient_auth.signin.messages import Arrival
from resilient_auth.signin.sessions import SessionOptions, Sessions
from resilient_auth.signin.sessions.record import Who
from resilient_auth.store import Record
from resilient_auth.testing import ManualClock, no_jitter

KEY = bytes(range(32))
#: Makes what uses a store as one process does, again and again.
Use = Callable[[Any, ManualClock], Callable[[], object]]


class OtherRelease:
    """A store whose records of some kind another release has written."""

    def __init__(self, clock: ManualClock) -> None:
        self._store = ra.SealedStore(MemoryBackend(clock=clock), key=KEY, clock=clock)
        self.written: dict[str, bytes] = {}
        self.instead: dict[str, bytes] = {}

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def write(self, kind: str, name: str, value: bytes, **options: Any) -> str | None:
        self.written.setdefault(kind, value)
        return self._store.write(kind, name, value, **options)

    def read(self, kind: str, name: str) -> Record | None:
        return self._seen(self._store.read(kind, name))

    def read_many(self, wanted: Any) -> list[Record | None]:
        return [self._seen(record) for record in self._store.read_many(wanted)]

    def scan(self, kind: str) -> Iterator[Record]:
        for record in self._store.scan(kind):
            seen = self._seen(record)
            assert seen is not None
            yield seen

    def _seen(self, record: Record | None) -> Record | None:
        if record is None or record.kind not in self.instead:
            return record
        return Record(record.kind, record.name, self.instead[record.kind], record.version)


def sessions(store: Any, clock: ManualClock) -> Callable[[], object]:
    kept = Sessions(store, SessionOptions(recheck=0.0), clock=clock)
    who = Who(
        provider="entra", issuer="https://id.example", subject="ada", oid="o", tenant="t", claims={"roles": ["a"]}
    )
    _, cookie = kept.create(who)

    def use() -> None:
        with suppress(ResilientAuthError):
            found = kept.find(cookie)
            if found is not None:
                kept.renew(found)
                kept.extend(found)
                kept.rotate(found, anyway=True)
        kept.outlook.take_stock()
        list(kept.outlook.read())
        with suppress(ResilientAuthError):
            kept.create(who)
        with suppress(ResilientAuthError):
            kept.any_listed("sub https://id.example ada")
            kept.listed(("sub https://id.example ada",))
        kept.end_where("https://id.example", subject="ada")

    return use


def codes(store: Any, clock: ManualClock) -> Callable[[], object]:
    options = OneTimeCodes(find=lambda _: {"sub": "ada"}, send=lambda *_: None, per_address=20)
    book = CodeBook(options, store, clock, application="app")
    book.begin("ada@contoso.com")

    def use() -> None:
        with suppress(StoreUnavailable):
            assert book.redeem("ada@contoso.com", "wrong") is None
        book.begin("ada@contoso.com")

    return use


def sign_ins(store: Any, clock: ManualClock) -> Callable[[], object]:
    def use() -> None:
        flows = Flows(store, "https://app.example", clock, life=600.0, most=5, prefix="__Host-sign-in-")
        begun = flows.begin(Arrival("GET", "/"), "state", {})
        assert begun is not None
        flows.open(Arrival("GET", "/", cookies={begun[0].name: begun[0].value}), "state")

    use()
    return use


def callouts(store: Any, clock: ManualClock) -> Callable[[], object]:
    from resilient_auth.callouts.contract import Reply

    once = Once("token", 600.0, store, clock)
    once.claim("key")
    once.note("key", Reply(200, b"{}"))
    return lambda: once.claim("key")


def last_claims(store: Any, clock: ManualClock) -> Callable[[], object]:
    request = TokenIssuanceStart(user_id="ada", tenant_id="t", client_id="c")
    last = LastClaims("token", LastKnown(otherwise=Continue()), store, clock)

    def use() -> None:
        found = last.find(request)
        last.claims(request, found)
        kept = last.keep(request, Continue({"role": "a"}))
        assert kept is not None
        last.tell(*kept)

    use()
    return use


def writes(store: Any, clock: ManualClock) -> Callable[[], object]:
    def fail(_: object) -> None:
        raise OSError

    waiting = BackgroundWrites("audit", fail, store=store, clock=clock, jitter=no_jitter)
    waiting.put({"a": 1}, key="k")

    def use() -> None:
        for letter in waiting.dead_letters():
            json.dumps(letter.payload)
        waiting.retry("k")
        waiting.discard("k")
        waiting.put({"a": 1}, key="k")
        waiting._look()

    return use


def revocations(store: Any, clock: ManualClock) -> Callable[[], object]:
    told = verify.Revocations(store, clock=clock)

    def use() -> None:
        told.revoke([("sub", "https://id.example", "ada")], clock.wall())
        verify.Revocations(store, clock=clock).close()
        told.look()

    use()
    return use


def tokens(store: Any, clock: ManualClock) -> Callable[[], object]:
    entry = {
        "username": "ada",
        "home_account_id": "a.b",
        "environment": "e",
        "secret": "s",
        "credential_type": "Account",
    }
    refresh = {"secret": "r", "last_modification_time": "1"}
    token = StoredToken("t", "Bearer", clock.wall(), 600.0, 300.0, None, {}, 1)
    wire = WireIdentity("wire", fleet="wire", verified=True, label="")

    def use() -> None:
        records = Records(store, clock, 0.0)
        looked, _ = records.look(["user"], ["hint"])
        list(records.partitions(["user"]))
        list(records.all_partitions("user"))
        changes = {("Account", "k"): Change(None, entry), ("RefreshToken", "r"): Change(None, refresh)}
        for known in (looked[0], None):
            with suppress(StoreUnavailable):
                records.save("user", known, "b", changes, {"k": token}, anew=SignIn())
        records.erase("other", clock.wall(), "removal")
        records.clear_removals(["other"], SignIn())
        records.note(USERNAMES, "ada", "a.b")
        records.noted(USERNAMES, "ada")
        list(records.all_noted(USERNAMES, "a"))
        records.publish("https://id.example", wire, {"obtained": clock.wall(), "body": {}})
        records.document("https://id.example", wire)
        records.hints.post("hint", 30.0, "throttled", "")

    use()
    return use


USES: list[Use] = [sessions, codes, sign_ins, callouts, last_claims, writes, revocations, tokens]


def instead_of(value: bytes) -> Iterator[bytes]:
    """Return what may be there in a record's place: no JSON, other JSON, and the same but for one place."""
    yield from (b"", b"\xff\xfe", b"[" * 100_000, b"{")
    yield from (json.dumps(odd).encode() for odd in ODD)
    with suppress(ValueError):
        yield from (json.dumps(document).encode() for _, document in altered(json.loads(value)))


@pytest.mark.parametrize("use", USES, ids=lambda use: use.__name__)
def test_whatever_a_record_holds_is_understood_or_said_to_be_unusable(use: Use, own_environment: None) -> None:
    """As a store that fails, which every face answers; for each kind of record, and each place in one."""
    clock = ManualClock(1_800_000_000.0)
    store = OtherRelease(clock)
    again = use(store, clock)
    kinds = dict(store.written)
    assert kinds
    for kind, value in kinds.items():
        for other in instead_of(value):
            store.instead = {kind: other}
            try:
                again()
            except StoreUnavailable:
                pass
            except Exception as error:
                error.add_note(f"{kind}: {other[:300]!r}")
                raise


def test_who_was_signed_out_stays_so_whatever_a_newer_release_adds(own_environment: None) -> None:
    """A list that can't be read lets nobody begin as if it were empty; a revocation that says more still holds."""
    clock = ManualClock(1_800_000_000.0)
    store = OtherRelease(clock)
    kept = Sessions(store, clock=clock)  # type: ignore[arg-type]
    who = Who(provider="entra", issuer="https://id.example", subject="ada")
    kept.create(who)
    store.instead = {"session-list": b'{"v": 2}'}
    with pytest.raises(StoreUnavailable, match="newer_schema"):
        kept.create(who)

    told = verify.Revocations(store, clock=clock)  # type: ignore[arg-type]
    told.revoke([("sub", "https://id.example", "ada")], clock.wall())
    more = json.dumps([*json.loads(store.written["revocation"]), "why"]).encode()
    store.instead = {"revocation": more, "revocations": b'{"v": 2}'}
    here = verify.Revocations(store, clock=clock)  # type: ignore[arg-type]
    assert len(here.deny.revoked) == 1
    told.revoke([("sub", "https://id.example", "bob")], clock.wall())
    store.instead = {"revocations": b'{"v": 2}'}
    here.look()
    assert len(here.deny.revoked) == 2
