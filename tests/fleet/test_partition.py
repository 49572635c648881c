"""Partitions: merged so that nothing that was acknowledged is lost, and nothing that was removed comes back."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

import resilient_auth as ra
from resilient_auth._fleet.records import USERNAMES, Records
from resilient_auth._fleet.user_record import (
    Change,
    SignIn,
    StoredToken,
    UserRecord,
    decode,
    encode,
    merge,
    prune,
    seconds_worth_keeping,
    token_key,
)
from resilient_auth._policy.endpoint import WireIdentity
from resilient_auth._store.memory import MemoryBackend
from resilient_auth.token import TokenRequest

RT = ("RefreshToken", "key")
REQUEST = TokenRequest("https://login.example", "app", "silent", ("a",), "ann")


def _rt(secret: str, at: int = 0) -> dict[str, Any]:
    return {"secret": secret, "last_modification_time": str(at)}


def _token(secret: str = "t", obtained_on: float = 1000.0, life: float = 600.0) -> StoredToken:
    return StoredToken(secret, "Bearer", obtained_on, life, 300.0, None, {})


def test_what_is_written_is_read_again() -> None:
    """A partition survives its encoding whole."""
    whole = UserRecord("b", {RT: _rt("r", 5)}, {"k": _token()})
    again = decode(encode(whole, "n"), "7", "n")
    assert again is not None
    assert (again.born, again.entries, again.tokens, again.version) == ("b", whole.entries, whole.tokens, "7")


@given(st.binary(max_size=60) | st.text(max_size=60).map(str.encode))
def test_what_isnt_a_partition_is_none(value: bytes) -> None:
    """Garbage under a partition's name is a miss and no error."""
    assert decode(value, "1", "n") is None


def test_a_rotated_refresh_token_replaces_the_one_it_came_from() -> None:
    """The usual case: nobody else wrote."""
    stored = UserRecord("b", {RT: _rt("r1", 10)})
    merged = merge(stored, "b", {RT: Change(_rt("r1", 10), _rt("r2", 10))}, {}, anew=None)
    assert merged is not None
    assert merged.entries[RT]["secret"] == "r2"


def test_an_older_rotation_doesnt_replace_a_later_one() -> None:
    """A process whose lease had ended comes back with what the provider gave before."""
    stored = UserRecord("b", {RT: _rt("r3", 20)})
    merged = merge(stored, "b", {RT: Change(_rt("r1", 0), _rt("r2", 10))}, {}, anew=None)
    assert merged is not None
    assert merged.entries[RT]["secret"] == "r3"


def test_a_refused_refresh_token_doesnt_take_its_successor_along() -> None:
    """MSAL removes what the provider refused; by then another process may have rotated it."""
    refused = {RT: Change(_rt("r1", 0), None)}
    kept = merge(UserRecord("b", {RT: _rt("r2", 5)}), "b", refused, {}, anew=None)
    gone = merge(UserRecord("b", {RT: _rt("r1", 0)}), "b", refused, {}, anew=None)
    assert kept is not None
    assert kept.entries[RT]["secret"] == "r2"
    assert gone is not None
    assert RT not in gone.entries


def test_a_refresh_doesnt_bring_back_a_removed_account() -> None:
    """Whoever was refreshing while another process signed the user out, loses what it got."""
    change = {RT: Change(_rt("r1"), _rt("r2"))}
    assert merge(UserRecord("b", removed=True, version="4"), "b", change, {"k": _token()}, anew=None) is None
    assert merge(UserRecord("later", {RT: _rt("x")}), "b", change, {}, anew=None) is None


def test_a_sign_in_begins_anew_over_a_removal() -> None:
    """A tombstone keeps nobody out who signs in again."""
    merged = merge(UserRecord("b", removed=True, version="4"), "c", {RT: Change(None, _rt("r"))}, {}, anew=SignIn())
    assert merged is not None
    assert (merged.born, merged.removed, merged.version) == ("c", False, "4")


def test_a_store_that_was_emptied_is_filled_again() -> None:
    """A store that lost its records isn't a sign-out."""
    merged = merge(None, "b", {RT: Change(_rt("r1"), _rt("r2"))}, {"k": _token()}, anew=None)
    assert merged is not None
    assert merged.version is None
    assert merged.tokens["k"].secret == "t"


def test_of_two_tokens_the_later_one_stays_though_it_ends_sooner() -> None:
    """After a claims challenge the new token may be the shorter-lived one; the old one was refused."""
    long_lived = UserRecord("b", tokens={"k": _token("refused", 1000.0, 86_400.0)})
    merged = merge(long_lived, "b", {}, {"k": _token("new", 2000.0, 600.0)}, anew=None)
    assert merged is not None
    assert merged.tokens["k"].secret == "new"
    back = merge(merged, "b", {}, {"k": _token("refused", 1000.0, 86_400.0)}, anew=None)
    assert back is not None
    assert back.tokens["k"].secret == "new"


def test_a_stored_token_is_as_old_as_it_was() -> None:
    """Its life goes on while it is stored, on whichever machine."""
    user_record = UserRecord("b", tokens={token_key(REQUEST): _token(obtained_on=1000.0, life=600.0)})
    token = user_record.find(REQUEST, 1400.0, 50.0)
    assert token is not None
    assert token.remaining(1400.0, 50.0) == 200.0
    assert user_record.find(REQUEST, 1600.0, 50.0) is None


def test_a_token_from_the_future_isnt_believed() -> None:
    """A clock that is minutes behind the one that stored it can't tell when it ends."""
    user_record = UserRecord("b", tokens={token_key(REQUEST): _token(obtained_on=1000.0)})
    assert user_record.find(REQUEST, 700.0, 0.0) is None
    assert user_record.find(REQUEST, 960.0, 0.0) is not None


def test_what_is_over_is_pruned_and_what_a_refresh_token_may_renew_is_kept() -> None:
    """Records neither grow for ever nor end while there is a use for them."""
    user_record = UserRecord("b", tokens={str(n): _token(obtained_on=float(n), life=100.0) for n in range(1000)})
    pruned = prune(user_record, 500.0, 0.0, 256)
    assert len(pruned.tokens) == 256
    assert min(int(n) for n in pruned.tokens) == 744
    assert seconds_worth_keeping(pruned, 500.0, 0.0) == 599.0
    assert seconds_worth_keeping(UserRecord("b", {RT: _rt("r")}), 0.0, 0.0) == 90 * 86_400.0


@given(st.lists(st.tuples(st.integers(0, 1), st.booleans()), max_size=12))
def test_rotations_in_any_order_end_with_the_last_one(turns: list[tuple[int, bool]]) -> None:
    """Two processes that take turns under a lease, reading or not before they write, never lose the latest rotation."""
    stored = UserRecord("b", {RT: _rt("r0", 0)})
    seen = [stored, stored]
    for number, (who, writes) in enumerate(turns, start=1):
        seen[who] = stored  # under the lease it reads first
        if writes:
            change = Change(seen[who].entries[RT], _rt(f"r{number}", number // 3))
            merged = merge(stored, "b", {RT: change}, {}, anew=None)
            assert merged is not None
            stored = merged
            assert stored.entries[RT]["secret"] == f"r{number}"


def test_a_record_in_anothers_place_is_a_miss(clock: Any) -> None:
    """Each says inside the seal whose it is: what is under another name isn't taken for that one's."""
    store = ra.SealedStore(MemoryBackend(clock=clock), key=os.urandom(32), clock=clock)
    stored = Records(store, clock, 0.0)
    stored.save("ann", None, "b", {RT: Change(None, _rt("r"))}, {}, anew=SignIn())
    stored.note(USERNAMES, "ann", "ann.t")
    wire = WireIdentity("w", fleet="w", verified=True)
    stored.publish("ann", wire, {"text": "{}", "obtained_on": 0.0})
    stored.hints.post("ann", 60.0, "server_failed", "503")
    reads = {
        "user_record": lambda name: next(stored.partitions([name])),
        "usernames": lambda name: stored.noted(USERNAMES, name) or None,
        "document": lambda name: stored.document(name, wire),
        "hint": lambda name: stored.look([], [name])[1].get(name),
    }
    for kind, read in reads.items():
        assert read("ann") is not None, kind
        name = "{} over w" if kind == "document" else "{}"
        record = store.read(kind, name.format("ann"))
        assert record is not None
        store.write(kind, name.format("bob"), record.value, ttl=60.0)
        assert read("bob") is None, kind


def test_a_token_is_found_by_all_that_tells_it_from_others() -> None:
    """By its authority and client too, whatever partition it is in, and whatever is in its scopes and parameters."""
    requests = [
        REQUEST,
        replace(REQUEST, authority="https://login.example:8443"),
        replace(REQUEST, authority="https://login.example/realms/a"),
        replace(REQUEST, client_id="App"),
        replace(REQUEST, flow="on_behalf_of"),
        replace(REQUEST, scopes=("a", "b")),
        replace(REQUEST, scopes=("a b",)),
        replace(REQUEST, subject=None),
        replace(REQUEST, subject="None"),
        replace(REQUEST, subject="ann\n"),
        replace(REQUEST, variant="v"),
    ]
    tokens = {token_key(request): _token(str(number)) for number, request in enumerate(requests)}
    user_record = decode(encode(UserRecord("b", tokens=tokens), "n"), "1", "n")
    assert user_record is not None
    for number, request in enumerate(requests):
        found = user_record.find(request, 1100.0, 0.0)
        assert found is not None
        assert found.secret == str(number)
