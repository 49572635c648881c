"""Whose token is whose: realms, ports, policies, tenants and users that MSAL's own keys can't tell apart."""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import Callable, Iterator
from typing import Any

import jwt
import msal as plain_msal
import pytest

import resilient_auth as ra
from resilient_auth import msal
from resilient_auth._store.memory import MemoryBackend
from resilient_auth.emulator import Emulator, Fault
from resilient_auth.emulator.faults import WrongAnswer

SCOPE = ["https://graph.microsoft.com/.default"]
USER_SCOPE = ["https://graph.microsoft.com/User.Read"]
SECRET = "s3cret-of-the-daemon"


@pytest.fixture
def other_idp() -> Iterator[Emulator]:
    with Emulator() as emulator:
        yield emulator


@pytest.fixture
def store(clock: Any) -> Callable[[], Any]:
    """Open the one store as a new process would."""
    backend, key = MemoryBackend(clock=clock), os.urandom(32)
    return lambda: ra.SealedStore(backend, key=key, clock=clock)


Pair = tuple[dict[str, Any], dict[str, Any]]


@pytest.fixture(params=["realms", "case", "ports", "policies", "policies in the query", "tenants"])
def pair(request: pytest.FixtureRequest, idp: Emulator, other_idp: Emulator) -> Pair:
    """Arguments of two applications with one client id, at authorities that aren't the same."""

    def at(url: str, where: Emulator = idp, *, name: str = "authority") -> dict[str, Any]:
        return {name: url, "verify": where.ca_file, "instance_discovery": False}

    b2c = idp.authority("contoso.onmicrosoft.com")
    return {
        "realms": lambda: tuple(at(f"{idp.url}/realms/bank-{x}", name="oidc_authority") for x in "ab"),
        "case": lambda: tuple(at(f"{idp.url}/realms/{x}", name="oidc_authority") for x in ("Prod", "prod")),
        "ports": lambda: tuple(at(where.authority("contoso"), where) for where in (idp, other_idp)),
        "policies": lambda: tuple(at(f"{b2c}/b2c_1_{x}") for x in ("signup", "mfa")),
        "policies in the query": lambda: tuple(at(f"{b2c}?p=b2c_1_{x}") for x in ("signup", "mfa")),
        "tenants": lambda: tuple(at(idp.authority(x)) for x in ("contoso", "fabrikam")),
    }[request.param]()  # type: ignore[return-value]


def _origin(arguments: dict[str, Any]) -> str:
    return "/".join(str(arguments.get("oidc_authority") or arguments["authority"]).split("/")[:3])


def _is_from(arguments: dict[str, Any], token: str) -> bool:
    """Return by the token's own claims whether an authority gave it."""
    claims = jwt.decode(token, options={"verify_signature": False})
    given = str(arguments.get("oidc_authority") or arguments["authority"])
    if "/realms/" in given:
        return bool(claims["iss"] == given)
    if "b2c_1_" in given:
        return bool(claims["iss"].startswith(_origin(arguments)) and given.endswith(claims["tfp"]))
    return bool(claims["iss"].startswith(_origin(arguments)) and claims["tid"] == _tenant(given))


def _tenant(given: str) -> str:
    from resilient_auth.emulator.provider.realms import tenant_id

    return tenant_id(given.rpartition("/")[2])


def _plain(arguments: dict[str, Any], **options: Any) -> Any:
    return plain_msal.ConfidentialClientApplication("daemon", client_credential=SECRET, **arguments, **options)


def _drop_in(arguments: dict[str, Any], settings: ra.Settings, **options: Any) -> Any:
    return msal.ConfidentialClientApplication(
        "daemon", client_credential=SECRET, resilience=settings, **arguments, **options
    )


def _wrapped(arguments: dict[str, Any], settings: ra.Settings, **options: Any) -> Any:
    return ra.wrap(_plain(arguments, **options), resilience=settings)


def _sign_in(app: Any, idps: tuple[Emulator, ...], username: str = "ann@contoso.com") -> dict[str, Any]:
    flow = app.initiate_auth_code_flow(USER_SCOPE, redirect_uri="http://localhost/back", response_mode="form_post")
    where = next(idp for idp in idps if flow["auth_uri"].startswith(idp.url))
    where.add_user(username)
    result: dict[str, Any] = app.acquire_token_by_auth_code_flow(flow, where.sign_in(flow["auth_uri"], username))
    assert "access_token" in result, result
    return result


def _settle(app: Any) -> None:
    ends = time.monotonic() + 8
    while not app._ra_session.shared_cache.settled:
        assert time.monotonic() < ends
        time.sleep(0.005)


@pytest.mark.parametrize("build", [_drop_in, _wrapped])
def test_two_authorities_share_nothing_in_a_store(
    pair: Pair, build: Callable[..., Any], settings: Any, store: Any, idp: Emulator, other_idp: Emulator
) -> None:
    """Neither the application's token, nor a user's, nor the account and refresh token get to the other authority."""
    one, two = pair
    first = build(one, settings(store=store()))
    assert _is_from(one, first.acquire_token_for_client(SCOPE)["access_token"])
    _sign_in(first, (idp, other_idp))
    (account,) = first.get_accounts()
    assert _is_from(one, first.acquire_token_silent(USER_SCOPE, account)["access_token"])
    _settle(first)
    second = build(two, settings(store=store()))
    assert _is_from(two, second.acquire_token_for_client(SCOPE)["access_token"])
    assert second.get_accounts() == []
    assert second.acquire_token_silent(USER_SCOPE, account) is None
    assert list(second.token_cache.search("RefreshToken")) == []
    # And the first one's are still there, for its next life.
    again = build(one, settings(store=store()))
    assert again.get_accounts() == [account]
    assert _is_from(one, again.acquire_token_silent(USER_SCOPE, account)["access_token"])
    calls = len(idp.ledger.token_calls())
    assert _is_from(one, again.acquire_token_for_client(SCOPE)["access_token"])
    assert len(idp.ledger.token_calls()) == calls
    for app in (first, second, again):
        app.close()


def test_the_faces_around_a_plain_application_share_nothing_in_a_store(pair: Pair, settings: Any, store: Any) -> None:
    """`aio.wrap` and a credential over MSAL's own application keep authorities apart too."""
    one, two = pair

    async def ask(arguments: dict[str, Any]) -> str:
        async with ra.aio.wrap(_plain(arguments), resilience=settings(store=store())) as app:
            result = await app.acquire_token_for_client(SCOPE)
            return str(result["access_token"])

    for arguments in (one, two, one):
        assert _is_from(arguments, asyncio.run(ask(arguments)))
        with ra.ResilientCredential(_plain(arguments), settings=settings(store=store())) as credential:
            assert _is_from(arguments, credential.get_token(*SCOPE).token)


@pytest.mark.parametrize("build", [_drop_in, _wrapped])
def test_two_authorities_share_nothing_but_a_cache(
    pair: Pair, build: Callable[..., Any], settings: Any, idp: Emulator, other_idp: Emulator
) -> None:
    """In one TokenCache each finds what is its own, though MSAL's keys are the same."""
    one, two = pair
    cache = msal.TokenCache()
    first, second = build(one, settings(), token_cache=cache), build(two, settings(), token_cache=cache)
    for app, arguments in ((first, one), (second, two)) * 2:
        assert _is_from(arguments, app.acquire_token_for_client(SCOPE)["access_token"])
    _sign_in(first, (idp, other_idp))
    (account,) = first.get_accounts()
    mine = first.acquire_token_silent(USER_SCOPE, account)
    assert _is_from(one, mine["access_token"])
    theirs = second.acquire_token_silent(USER_SCOPE, account)
    # A tenant's sibling may use the user's refresh token, as in MSAL; nobody else may.
    assert theirs is None or (
        "/realms/" not in str(one) and "b2c" not in str(one) and _is_from(two, theirs["access_token"])
    )
    if theirs is None:
        assert second.get_accounts() == []
    second.remove_account(account)
    assert second.acquire_token_silent(USER_SCOPE, account) is None
    # One of its own, which takes no other one's place.
    _sign_in(second, (idp, other_idp), "bob@fabrikam.com")
    (bob,) = second.get_accounts("bob@fabrikam.com")
    assert _is_from(two, second.acquire_token_silent(USER_SCOPE, bob)["access_token"])
    first.close()
    second.close()


def test_what_a_plain_application_adds_to_a_shared_cache_is_the_providers_that_gave_it(
    pair: Pair, settings: Any, idp: Emulator, other_idp: Emulator
) -> None:
    """MSAL's own application at the other authority, with the same cache, lends nothing either."""
    one, two = pair
    cache = msal.TokenCache()
    plain, ours = _plain(one, token_cache=cache), _wrapped(two, settings(), token_cache=cache)
    plain.acquire_token_for_client(SCOPE)
    _sign_in(plain, (idp, other_idp))
    (account,) = plain.get_accounts()
    assert _is_from(two, ours.acquire_token_for_client(SCOPE)["access_token"])
    silent = ours.acquire_token_silent(USER_SCOPE, account)
    assert silent is None or _is_from(two, silent["access_token"])
    same = _wrapped(one, settings(), token_cache=cache)
    assert _is_from(one, same.acquire_token_silent(USER_SCOPE, account)["access_token"])
    ours.close()
    same.close()


@pytest.mark.parametrize("kind", ["realms", "policies"])
def test_what_was_in_a_cache_before_us_isnt_guessed_at(kind: str, idp: Emulator, settings: Any) -> None:
    """Entries that don't say which realm gave them, under keys that can't tell either, are nobody's until imported."""
    name, url = {
        "realms": ("oidc_authority", f"{idp.url}/realms/bank-"),
        "policies": ("authority", f"{idp.authority('contoso.onmicrosoft.com')}/b2c_1_"),
    }[kind]
    one, two = ({name: url + x, "verify": idp.ca_file, "instance_discovery": False} for x in "ab")
    cache = msal.SerializableTokenCache()
    plain = _plain(one, token_cache=cache)
    plain.acquire_token_for_client(SCOPE)
    _sign_in(plain, (idp,))
    (account,) = plain.get_accounts()
    theirs = _wrapped(two, settings(), token_cache=cache)
    assert _is_from(two, theirs.acquire_token_for_client(SCOPE)["access_token"])
    assert theirs.acquire_token_silent(USER_SCOPE, account) is None
    mine = _drop_in(one, settings())
    ra.import_msal_cache(mine, cache.serialize())
    assert _is_from(one, mine.acquire_token_silent(USER_SCOPE, account)["access_token"])
    theirs.close()
    mine.close()


def test_what_was_in_a_cache_before_us_is_nobodys_where_two_ports_share_it(
    idp: Emulator, other_idp: Emulator, settings: Any
) -> None:
    """MSAL's keys know no ports: once two are known to give tokens that come there, neither takes what says nothing."""
    abouts = [
        {"authority": where.authority("contoso"), "verify": where.ca_file, "instance_discovery": False}
        for where in (idp, other_idp)
    ]
    cache = msal.SerializableTokenCache()
    plain = _plain(abouts[0], token_cache=cache)
    plain.acquire_token_for_client(SCOPE)
    _sign_in(plain, (idp,))
    (account,) = plain.get_accounts()
    apps = [_wrapped(about, settings(), token_cache=cache) for about in abouts]
    assert apps[1].acquire_token_silent(USER_SCOPE, account) is None
    for about, app in zip(abouts, apps, strict=True):
        assert _is_from(about, app.acquire_token_for_client(SCOPE)["access_token"])
        app.close()


def test_a_token_of_another_tenant_isnt_the_applications_afterwards(idp: Emulator, settings: Any, store: Any) -> None:
    """`get_token(tenant_id=...)`, to which an API's challenge can lead, changes nothing for the own tenant."""
    about = {"authority": idp.authority("contoso"), "verify": idp.ca_file, "instance_discovery": False}
    app = _drop_in(about, settings(store=store()))
    _sign_in(app, (idp,))
    (account,) = app.get_accounts()
    credential = ra.ResilientCredential(app, account=account, additionally_allowed_tenants=["*"])
    calendar = "https://graph.microsoft.com/Calendars.Read"
    far = credential.get_token(calendar, tenant_id="fabrikam").token
    _settle(app)
    for each in (app, _drop_in(about, settings(store=store()))):
        own = each.acquire_token_silent([calendar], account)["access_token"]
        assert own != far
        assert jwt.decode(own, options={"verify_signature": False})["tid"] == _tenant("/contoso")
        each.close()
    credential.close()


def test_what_was_declared_is_part_of_whose_token_it_is(idp: Emulator, settings: Any, store: Any) -> None:
    """A token under continuous access evaluation isn't served to an application that can't handle its challenges."""
    about = {"authority": idp.authority("contoso"), "verify": idp.ca_file, "instance_discovery": False}
    cache = msal.TokenCache()
    for options in ({"token_cache": cache}, {}):
        chosen = settings() if options else settings(store=store())
        cae = _drop_in(about, chosen, client_capabilities=["cp1"], **options)
        plain = _drop_in(about, chosen, **options)
        for _ in range(2):
            assert idp.ledger.lookup(cae.acquire_token_for_client(SCOPE)["access_token"]).cae
            assert not idp.ledger.lookup(plain.acquire_token_for_client(SCOPE)["access_token"]).cae
        cae.close()
        plain.close()


def _without_account(number: int) -> WrongAnswer:
    body = {"token_type": "Bearer", "access_token": f"somebodys-{number}", "expires_in": 3600, "scope": SCOPE[0]}
    return WrongAnswer("answer", 200, body=json.dumps(body | {"refresh_token": "r"}), content_type="application/json")


@pytest.mark.parametrize("stored", [False, True])
@pytest.mark.parametrize("build", [_drop_in, _wrapped])
def test_a_users_token_without_an_account_isnt_the_applications(
    build: Callable[..., Any], stored: bool, idp: Emulator, proxied: dict[str, Any], settings: Any, store: Any
) -> None:
    """An answer that doesn't say whose it is serves the call that asked, and no other one."""
    grants = [
        lambda app: app.acquire_token_on_behalf_of("the assertion of a user", SCOPE),
        lambda app: app.acquire_token_by_username_password("ann@contoso.com", "pw", SCOPE),
        lambda app: app.acquire_token_by_authorization_code("a code", SCOPE),
        lambda app: app.acquire_token_by_refresh_token("a refresh token", SCOPE),
    ]
    for number, grant in enumerate(grants):
        app = build(proxied, settings(store=store()) if stored else settings())
        idp.fail(_without_account(number), "token", count=1)
        assert grant(app)["access_token"] == f"somebodys-{number}"
        assert not app.acquire_token_for_client(SCOPE)["access_token"].startswith("somebodys")
        assert list(app.token_cache.search("RefreshToken")) == []
        assert app.acquire_token_silent(SCOPE, {"home_account_id": None, "username": "ann@contoso.com"}) is None
        app.close()


def test_an_on_behalf_of_token_without_an_account_is_held_for_its_assertion(idp: Emulator, settings: Any) -> None:
    """What MSAL's cache mustn't have, our memory may: it knows whose it is."""
    about = {"authority": idp.authority("contoso"), "verify": idp.ca_file, "instance_discovery": False}
    app = _drop_in(about, settings())
    for number, user in enumerate(("ann", "bob")):
        idp.fail(_without_account(number), "token", count=1)
        for _ in range(2):
            assert app.acquire_token_on_behalf_of(f"{user}'s token", SCOPE)["access_token"] == f"somebodys-{number}"
    app.close()


def test_a_device_flow_without_an_account_isnt_the_applications(idp: Emulator, settings: Any) -> None:
    """A grant that runs on the caller's thread files nothing under nobody either."""
    about = {"authority": idp.authority("contoso"), "verify": idp.ca_file, "instance_discovery": False}
    cache = msal.TokenCache()
    desktop = msal.PublicClientApplication("daemon", resilience=settings(), token_cache=cache, **about)
    flow = desktop.initiate_device_flow(SCOPE)
    idp.approve_device(flow["user_code"], "ann@contoso.com")
    idp.fail(_without_account(0), "token", count=1)
    assert desktop.acquire_token_by_device_flow(flow)["access_token"] == "somebodys-0"
    app = _drop_in(about, settings(), token_cache=cache)
    assert not app.acquire_token_for_client(SCOPE)["access_token"].startswith("somebodys")
    app.close()
    desktop.close()


def test_a_cache_for_each_session_and_a_store_exclude_each_other(idp: Emulator, settings: Any, store: Any) -> None:
    """MSAL's sample for web applications, given a store, would let every visitor in as somebody else."""
    about = {"authority": idp.authority("contoso"), "verify": idp.ca_file, "instance_discovery": False}
    with pytest.raises(ra.ConfigurationError, match="token_cache and Settings"):
        _drop_in(about, settings(store=store()), token_cache=msal.SerializableTokenCache())
    with pytest.raises(ra.ConfigurationError, match="SerializableTokenCache"):
        _wrapped(about, settings(store=store()), token_cache=msal.SerializableTokenCache())
    with pytest.raises(ra.ConfigurationError, match="SerializableTokenCache"):
        ra.ResilientCredential(
            _plain(about, token_cache=msal.SerializableTokenCache()), settings=settings(store=store())
        )
    assert not idp.ledger.token_calls()


@pytest.mark.parametrize("build", [_drop_in, _wrapped])
def test_a_cache_that_is_swapped_for_a_sessions_isnt_filled_from_a_store(
    build: Callable[..., Any], idp: Emulator, settings: Any, store: Any
) -> None:
    """The sample again, with one application whose cache is replaced for each visitor."""
    about = {"authority": idp.authority("contoso"), "verify": idp.ca_file, "instance_discovery": False}
    app = build(about, settings(store=store()))
    _sign_in(app, (idp,))
    (account,) = app.get_accounts()
    assert app.acquire_token_silent(USER_SCOPE, account)
    former, visitors = app.token_cache, msal.SerializableTokenCache()
    app.token_cache = _drop_in(about, settings()).token_cache  # another one's, who has no store
    with pytest.raises(ra.ConfigurationError, match="token_cache was replaced"):
        app.get_accounts()
    app.token_cache = visitors
    asks: list[Callable[[], Any]] = [
        app.get_accounts,
        lambda: app.get_accounts("ann@contoso.com"),
        lambda: app.acquire_token_silent(USER_SCOPE, account),
        lambda: app.acquire_token_for_client(SCOPE),
        lambda: app.acquire_token_by_authorization_code("a code", USER_SCOPE),
        lambda: app.remove_account(account),
    ]
    for ask in asks:
        with pytest.raises(ra.ConfigurationError, match="token_cache was replaced"):
            ask()
    assert json.loads(visitors.serialize() or "{}") == {}
    app.token_cache = former
    assert app.acquire_token_silent(USER_SCOPE, account)["token_source"] == "cache"
    app.close()


def test_sessions_with_caches_of_their_own_see_their_own_users(idp: Emulator, settings: Any) -> None:
    """MSAL's sample without a store: one application whose cache is replaced, and one built for each visitor."""
    about = {"authority": idp.authority("contoso"), "verify": idp.ca_file, "instance_discovery": False}
    shared = _drop_in(about, settings())
    caches = {name: msal.SerializableTokenCache() for name in ("ann@contoso.com", "bob@contoso.com", "nobody")}
    for name, cache in caches.items():
        if name != "nobody":
            _sign_in(_drop_in(about, settings(), token_cache=cache), (idp,), name)
    for name, cache in list(caches.items()) * 2:
        app = _drop_in(about, settings(), token_cache=cache)
        shared.token_cache = cache
        for each in (app, shared):
            users = [account["username"] for account in each.get_accounts()]
            assert users == ([] if name == "nobody" else [name])
            for account in each.get_accounts():
                token = each.acquire_token_silent(USER_SCOPE, account)["access_token"]
                assert jwt.decode(token, options={"verify_signature": False})["preferred_username"] == name
        app.close()
    shared.close()


def test_an_application_with_anothers_cache_isnt_given_a_store(idp: Emulator, settings: Any, store: Any) -> None:
    """Two applications' users in one cache would be mixed in the store."""
    cache = msal.TokenCache()
    about = {"verify": idp.ca_file, "instance_discovery": False}
    first = _wrapped(about | {"authority": idp.authority("contoso")}, settings(store=store()), token_cache=cache)
    with pytest.raises(ra.ConfigurationError, match="shares its token_cache"):
        _wrapped(about | {"authority": idp.authority("fabrikam")}, settings(store=store()), token_cache=cache)
    same = _wrapped(about | {"authority": idp.authority("contoso")}, settings(store=store()), token_cache=cache)
    for app in (first, same):
        app.close()


def test_a_token_for_a_key_is_that_keys_alone(idp: Emulator, settings: Any) -> None:
    """Parameters that MSAL leaves out of its keys tell tokens apart too, in memory and in MSAL's cache."""
    about = {"authority": idp.authority("contoso"), "verify": idp.ca_file, "instance_discovery": False}
    cache = msal.TokenCache()
    asked = [{"req_cnf": "one"}, {"req_cnf": "two"}, {"key_id": "k"}, {"key_id": "k", "req_cnf": "one"}, {}]
    got = []
    for _ in range(2):
        app = _drop_in(about, settings(), token_cache=cache)
        for _ in range(2):
            tokens = [app.acquire_token_for_client(SCOPE, data=dict(data))["access_token"] for data in asked]
            assert len(set(tokens)) == len(asked)
            got.append(tokens)
        app.close()
    assert got[0] == got[1]


def test_who_signs_out_is_signed_out_in_all_tenants_of_the_cloud(idp: Emulator, settings: Any) -> None:
    """As in MSAL: tokens of other tenants that the user's refresh token brought go with it."""
    cache = msal.TokenCache()
    about = {"verify": idp.ca_file, "instance_discovery": False}
    apps = [
        _drop_in(about | {"authority": idp.authority(t)}, settings(), token_cache=cache)
        for t in ("contoso", "fabrikam")
    ]
    _sign_in(apps[0], (idp,))
    (account,) = apps[0].get_accounts()
    assert all(app.acquire_token_silent(USER_SCOPE, account) for app in apps)
    apps[0].remove_account(account)
    assert list(cache.search("AccessToken", now=0)) == []
    assert [app.acquire_token_silent(USER_SCOPE, account) for app in apps] == [None, None]
    for app in apps:
        app.close()


@pytest.mark.parametrize("verified", [False, True])
def test_what_a_refresh_brings_stays_on_its_side_of_a_verified_wire(
    idp: Emulator, settings: Any, verified: bool
) -> None:
    """A token that anybody may have made up, since nobody verified who gave it, is served to who verifies as little."""
    about = {"authority": idp.authority("contoso"), "instance_discovery": False, "token_cache": msal.TokenCache()}
    trust = [idp.ca_file, False] if verified else [False, idp.ca_file]
    mine, mine_too = (_drop_in(about | {"verify": trust[0]}, settings()) for _ in range(2))
    others = _drop_in(about | {"verify": trust[1]}, settings())
    _sign_in(mine, (idp,))
    (account,) = mine.get_accounts()
    refreshed = mine.acquire_token_silent(USER_SCOPE, account, force_refresh=True)["access_token"]
    assert mine_too.acquire_token_silent(USER_SCOPE, account)["access_token"] == refreshed
    assert others.get_accounts() == []
    assert others.acquire_token_silent(USER_SCOPE, account) is None
    for app in (mine, mine_too, others):
        app.close()


def test_accounts_of_another_authority_are_nobodys_in_an_outage_too(
    idp: Emulator, other_idp: Emulator, settings: Any
) -> None:
    """While discovery hasn't told yet what is whose, what says that another one gave it isn't listed."""
    cache = msal.TokenCache()
    abouts = [
        {"authority": where.authority("contoso"), "verify": where.ca_file, "instance_discovery": False}
        for where in (idp, other_idp)
    ]
    first = _drop_in(abouts[0], settings(), token_cache=cache)
    _sign_in(first, (idp,))
    other_idp.fail(Fault.refuse())
    second = _drop_in(abouts[1], settings(wait=0.5, discovery_wait=0.5), token_cache=cache)
    for username in (None, "ann@contoso.com"):
        assert [a["username"] for a in first.get_accounts(username)] == ["ann@contoso.com"]
        assert second.get_accounts(username) == []
    first.close()
    second.close()
