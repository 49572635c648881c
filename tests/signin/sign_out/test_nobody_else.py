"""Whatever is said of whom: exactly those sessions end that it means, and no other one's tokens are refused."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

import resilient_auth as ra
from resilient_auth._store.memory import MemoryBackend
from resilient_auth.signin import Sessions, Who
from resilient_auth.signin.sign_out.ending import Ending, Whom
from resilient_auth.testing import ManualClock
from resilient_auth.verify import Revocations
from resilient_auth.verify.claims import Claims, Provenance

KEY = os.urandom(32)
NOW = 1_000_000_000.0
#: So few that everything meets everything: an id of one kind, issuer, tenant or application is one of another too.
_ISSUERS = ("https://a.example", "https://a.example/", "https://b.example/tenant/policy")
_IDS = ("x", "y", "x y")
_TENANTS = (None, "t1", "t2")
_APPLICATIONS = ("https://one.example", "https://one.example/other")


@dataclass(frozen=True)
class Held:
    """A session that was begun, and of which application."""

    who: Who
    application: str
    late: bool


def _who(issuer: str, subject: str, sid: str | None, oid: str | None, tenant: str | None, mail: str | None) -> Who:
    claims = {} if mail is None else {"email": f"{mail.replace(' ', '')}@a.example"}
    return Who(provider="p", issuer=issuer, subject=subject, sid=sid, oid=oid, tenant=tenant, claims=claims)


_maybe = st.none() | st.sampled_from(_IDS)
_people = st.builds(
    _who, st.sampled_from(_ISSUERS), st.sampled_from(_IDS), _maybe, _maybe, st.sampled_from(_TENANTS), _maybe
)
_held = st.builds(Held, _people, st.sampled_from(_APPLICATIONS), st.booleans())


@st.composite
def _scenes(draw: st.DrawFn) -> tuple[list[Held], Whom]:
    """Make up sessions, and whom somebody means: somebody by some of the names of one of them."""
    held = draw(st.lists(_held, min_size=1, max_size=8))
    who = draw(st.sampled_from(held)).who
    named = draw(st.sets(st.sampled_from(["sid", "subject", "oid", "mail"]), min_size=1, max_size=2))
    whom = Whom(
        issuer=who.issuer,
        sid=who.sid if "sid" in named else None,
        subject=who.subject if "subject" in named else None,
        oid=who.oid if "oid" in named else None,
        tenant=who.tenant if "oid" in named else None,
        mail=who.claims.get("email") if "mail" in named else None,
    )
    return held, whom


def _is_meant(who: Who, whom: Whom) -> bool:
    """Say it once more, in other words than the code's."""
    wanted: list[bool] = []
    same = who.issuer == whom.issuer
    if whom.sid:
        wanted.append(same and who.sid == whom.sid)
    if whom.subject:
        wanted.append(same and who.subject == whom.subject)
    if whom.oid and whom.tenant:
        wanted.append(who.oid == whom.oid and who.tenant == whom.tenant)
    if whom.mail:
        wanted.append(same and who.claims.get("email") == whom.mail)
    return bool(wanted) and all(wanted)


def _claims(who: Who, issued_at: float) -> Claims:
    raw: dict[str, Any] = {"sid": who.sid, **who.claims}
    return Claims(
        subject=who.subject,
        object_id=who.oid,
        tenant_id=who.tenant,
        client_id=None,
        issuer=who.issuer,
        audience=("a",),
        scopes=frozenset(),
        roles=frozenset(),
        app_only=False,
        issued_at=issued_at,
        not_before=None,
        expires_at=NOW + 3600,
        token_id=None,
        session_id=who.sid,
        policy=None,
        nonce=None,
        username=None,
        name=None,
        raw=raw,
        provenance=Provenance(keys="fresh", keys_age=0.0),
    )


@settings(max_examples=60, deadline=None)
@given(_scenes())
def test_exactly_whom_it_means(scene: tuple[list[Held], Whom]) -> None:
    """What has the same names at another issuer, tenant or application is another one; so is a later sign-in."""
    held, whom = scene
    clock = ManualClock(NOW)
    store = ra.SealedStore(MemoryBackend(clock=clock), key=KEY, clock=clock)
    applications = {name: Sessions(store, clock=clock, application=name) for name in _APPLICATIONS}
    revocations = Revocations(store, clock=clock)
    begun: list[tuple[Held, str]] = []
    for late in (False, True):
        begun += [(one, applications[one.application].create(one.who)[1]) for one in held if one.late is late]
        if not late:
            clock.advance(60.0)
    ending = Ending(clock, sessions=applications[_APPLICATIONS[0]], revocations=revocations)
    ending.end(whom, code="back_channel", before=NOW + 30.0)
    revocations.close()
    clock.advance(10.0)
    for one, cookie in begun:
        mine = one.application == _APPLICATIONS[0]
        ended = mine and not one.late and _is_meant(one.who, whom)
        assert (applications[one.application].find(cookie) is None) is ended, one
        assert all(applications[name].find(cookie) is None for name in _APPLICATIONS if name != one.application)
        # Tokens of whoever has nothing in common with it are good; and of those who have, those that came later.
        matched = revocations.deny.revoked.match(_claims(one.who, NOW))
        if ended:
            assert matched
        if matched:
            assert any(_is_meant(one.who, Whom(**{"issuer": whom.issuer, **part})) for part in _parts(whom))
        assert not revocations.deny.revoked.match(_claims(one.who, NOW + 31.0))


def _parts(whom: Whom) -> list[dict[str, Any]]:
    parts: list[dict[str, Any]] = []
    if whom.sid:
        return [{"sid": whom.sid}]
    if whom.subject:
        parts.append({"subject": whom.subject})
    if whom.oid and whom.tenant:
        parts.append({"oid": whom.oid, "tenant": whom.tenant})
    if whom.mail:
        parts.append({"mail": whom.mail})
    return parts
