"""Who signs in again in the same browser: the session before is over, whichever way the answer comes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from signin_site import BASE, Site

from resilient_auth._engine.steps import run
from resilient_auth.emulator import Fault
from resilient_auth.signin import SignInOptions, Who
from resilient_auth.signin.messages import Arrival
from resilient_auth.signin.providers.redeeming import who_is
from resilient_auth.signin.sessions.record import names_of


def sent_back(site: Site, address: str, told: dict[str, str] | None = None) -> Any:
    """Have the provider's page send its form: a browser leaves the session's cookie, which is Lax, out of it."""
    own = site.cookie()
    if own is not None:
        site.browser.delete_cookie("__Host-session", domain="app.example", path="/")
    form = {"state": parse_qs(urlsplit(address).query)["state"][0], **told} if told else site.answer(address)
    answer = site.post("/signed-in", form)
    if own is not None and site.cookie() is None:
        site.browser.set_cookie("__Host-session", own, domain="app.example", secure=True)
    return answer


WANTS_A_PAGE = {"error": "login_required"}
FORGOTTEN = {"error": "access_denied", "error_description": "AADB2C90118: The user has forgotten"}


@pytest.mark.parametrize("told", [None, WANTS_A_PAGE, FORGOTTEN], ids=["at once", "wants a page", "forgotten"])
def test_what_the_user_had_is_over(make_site: Callable[..., Site], told: dict[str, str] | None) -> None:
    """Also where the provider has led through another sign-in in between."""
    site = make_site(options=SignInOptions(silent_first=True))
    site.sign_in()
    before = site.cookie() or ""
    address = site.begin("/sign-in?next=/me")
    if told is not None:
        address = sent_back(site, address, told).headers["Location"]
    assert sent_back(site, address).headers["Location"] == "/me"
    assert site.cookie() not in (None, before)
    assert site.get("/me").text == "me Ada"
    assert site.auth.engine.site.sessions.find(before) is None


def test_so_is_what_a_guest_had(make_site: Callable[..., Site]) -> None:
    """Guests are few: who has signed in takes no place among them."""
    site = make_site(options=SignInOptions(guests=True))
    site.emulator.fail(Fault.reset())
    assert site.post("/sign-in/guest", {"next": "/"}, origin=BASE).status_code == 303
    before = site.cookie() or ""
    site.emulator.heal()
    site.clock.advance(10.0)
    assert sent_back(site, site.begin("/me")).headers["Location"] == "/me"
    assert site.auth.engine.site.sessions.find(before) is None


@pytest.mark.parametrize("same", [True, False])
def test_tokens_stay_those_of_the_same_providers_user_alone(make_site: Callable[..., Site], same: bool) -> None:
    """Who changes a profile keeps the tokens of the sign-in; nobody gets those of another provider's namesake."""
    site = make_site()
    site.sign_in()
    engine = site.auth.engine
    known = engine.site.sessions.find(site.cookie() or "")
    assert known is not None
    who = known.session.who
    if not same:
        account = {**(who.account or {}), "home_account_id": "victim"}
        other = Who(provider="second", issuer="https://evil.example", subject=who.subject, account=account)
        session, _ = engine.site.sessions.create(other)
    edited = replace(who, account={"home_account_id": "edited"})
    steps = engine.signing_in.admit(
        Arrival("GET", "/"), edited, "/", engine.site.primary,
        replaces=known.session.id if same else session.id, use="edit",
    )  # fmt: skip
    (cookie,) = (each.value for each in run(steps).cookies)
    found = engine.site.sessions.find(cookie)
    assert found is not None
    assert found.session.who.account == (who.account if same else edited.account)


def test_who_it_is_is_known_by_a_large_token_too() -> None:
    """Of many groups, what an event may name the user by is kept, and so is what the provider's sign-out wants."""
    raw = {"sub": "s", "email": "Ada@contoso.com", "login_hint": "h", "groups": ["g" * 36] * 300}
    names = ("session_id", "object_id", "tenant_id", "name", "username")
    claims: Any = SimpleNamespace(raw=raw, issuer="i", subject="s", **dict.fromkeys(names))
    who = who_is("p", claims, None)
    assert "mail i ada@contoso.com" in names_of(who)
    assert who.claims == {"sub": "s", "email": "Ada@contoso.com", "login_hint": "h"}
