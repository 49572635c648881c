"""One process of the search for crossings: many applications, used by threads, tasks and forked children at once.

It judges each token by what the provider wrote into it, and knows of each application alone what that must be.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import contextvars
import hashlib
import json
import os
import random
import sys
import threading
import time
import traceback
import uuid
import warnings
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

for _name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
    os.environ.pop(_name, None)

import msal as plain_msal  # noqa: E402 - after the environment is cleaned

import resilient_auth as ra  # noqa: E402
from resilient_auth import msal  # noqa: E402

OWN = ["https://graph.microsoft.com/.default"]
USERS = ["https://graph.microsoft.com/User.Read"]
BACK = "http://localhost/back"

warnings.simplefilter("ignore")  # one wire isn't verified, and that is the point
current_user: contextvars.ContextVar[str] = contextvars.ContextVar("current_user")


@dataclass(frozen=True)
class Place:
    """An authority over one wire, and what the provider writes into the tokens that it gives."""

    name: str
    authority: str
    oidc: bool
    #: The issuer and policy of its tokens, and the keys that sign them.
    issuer: str
    policy: str | None
    kids: frozenset[str]
    verify: Any
    proxies: dict[str, str] | None
    #: Other tenants of the same provider by name, with their issuers.
    tenants: dict[str, str]


@dataclass
class Application:
    """One application object, which is thrown away and made again now and then."""

    place: Place
    client: str
    face: str
    settings: Any
    codes: dict[str, list[str]]
    cache: Any
    tally: Counter[str]
    app: Any = None
    around: Any = None
    #: Home accounts by user.
    accounts: dict[str, dict[str, Any]] = field(default_factory=dict)

    def build(self) -> None:
        """Make the object: a new life of the same application."""
        named = "oidc_authority" if self.place.oidc else "authority"
        arguments: dict[str, Any] = {
            "client_credential": "s3cret-of-the-daemon", named: self.place.authority, "instance_discovery": False,
            "verify": self.place.verify, "proxies": self.place.proxies,
        }  # fmt: skip
        if self.cache is not None:
            arguments["token_cache"] = self.cache
        if self.face in ("wrap", "aio"):
            app = ra.wrap(plain_msal.ConfidentialClientApplication(self.client, **arguments), resilience=self.settings)
        else:
            app = msal.ConfidentialClientApplication(self.client, **arguments, resilience=self.settings)
        old, self.app = self.app, app
        self.around = ra.aio.wrap(app) if self.face == "aio" else None
        if old is not None:
            old.close()


class Crossed(AssertionError):
    """Somebody got what is somebody else's."""


class Search:
    """Use all applications at random."""

    def __init__(self, where: dict[str, Any]) -> None:
        self._where = where
        self._seed = where["seed"]
        self.tally: Counter[str] = Counter()
        self.crossings: list[str] = []
        self._lock = threading.Lock()
        places = [Place(**{**p, "kids": frozenset(p["kids"])}) for p in where["places"]]
        store = self._store()
        plain, stored = ra.Settings(**self._options()), ra.Settings(store=store, **self._options())
        shared = plain_msal.TokenCache()
        self.applications = [
            Application(place, client, face, settings, where["codes"].get(f"{place.name} {client}", {}), cache,
                        self.tally)
            for place in places
            for client in where["clients"]
            for face, settings, cache in (
                ("drop-in", stored, None), ("wrap", stored, None), ("aio", stored, None),
                ("drop-in", plain, None), ("wrap", plain, shared), ("drop-in", plain, shared),
            )
        ]  # fmt: skip
        for application in self.applications:
            application.build()
        first = self.applications[0].app
        self.credential = ra.ResilientCredential(first, additionally_allowed_tenants=["*"])
        self.of_users = ra.ResilientCredential(_function_of_users, subject=current_user.get)

    def _store(self) -> Any:
        key = bytes.fromhex(self._where["key"])
        if "redis" in self._where:
            return ra.RedisStore(self._where["redis"], key=key)
        return ra.FileStore(self._where["file"], key=key)

    @staticmethod
    def _options() -> dict[str, Any]:
        return {"attempt_timeout": 5.0, "connect_timeout": 5.0, "discovery_wait": 10.0, "wait": 20.0}

    def judge(self, application: Application, token: str, *, subject: str, issuer: str | None = None) -> None:
        """Compare what the provider wrote into a token with what was asked for."""
        head, claims = (_json(part) for part in token.split(".")[:2])
        place = application.place
        expected = {
            "signed by": place.kids, "issuer": issuer or place.issuer, "policy": place.policy,
            "client": application.client, "subject": subject,
        }  # fmt: skip
        found = {
            "signed by": head["kid"], "issuer": claims["iss"], "policy": claims.get("tfp") or claims.get("acr"),
            "client": claims.get("azp") or claims.get("appid"), "subject": claims["oid"],
        }  # fmt: skip
        wrong = {
            name: (found[name], told) for name, told in expected.items()
            if (found[name] not in told if name == "signed by" else found[name] != told)
        }  # fmt: skip
        if wrong:
            raise Crossed(f"{place.name} {application.client} by {application.face}: {wrong}")

    def act(self, rng: random.Random) -> None:
        """Do one thing at random with one application."""
        application = rng.choice(self.applications)
        user = rng.choice(self._where["users"])
        kinds: list[tuple[Callable[[], None], int]] = [
            (lambda: self._own(application), 30),
            (lambda: self._silent(application, user, force=rng.random() < 0.02), 60),
            (lambda: self._behalf(application, rng), 10),
            (lambda: self._credential(rng), 10),
            (lambda: self._function(rng), 10),
            (lambda: self._remove(application, user), 1),
            (lambda: self._claims(application), 1),
            (lambda: self._anew(application), 1),
        ]
        what = rng.choices([kind for kind, _ in kinds], [weight for _, weight in kinds])[0]
        self.carefully(what)

    def carefully(self, what: Callable[[], None]) -> None:
        """Do it; anything but a crossing or a crash is fine."""
        try:
            what()
        except Crossed as crossed:
            with self._lock:
                self.crossings.append(f"{crossed}\n{''.join(traceback.format_stack(limit=6))}")
        except (ra.ProviderUnavailable, ra.StoreUnavailable, ra.TokenDenied, ra.Closed) as error:
            self.count(f"failed: {type(error).__name__}")
        except Exception:
            with self._lock:
                self.crossings.append(f"crashed: {traceback.format_exc()}")

    def count(self, what: str) -> None:
        with self._lock:
            self.tally[what] += 1

    def _seen(self, application: Application, result: Any, what: str, **expected: Any) -> None:
        if result is None or "access_token" not in result:
            self.count(f"{what}: none")
            if result and "refresh" in str(result.get("error_description")):
                raise Crossed(f"{application.place.name} {application.client}: {result['error_description']}")
            return
        self.judge(application, result["access_token"], **expected)
        self.count(what)

    def _own(self, application: Application) -> None:
        result = application.app.acquire_token_for_client(OWN)
        self._seen(application, result, "own", subject=_of_client(application.client))

    def _account(self, application: Application, user: str) -> dict[str, Any] | None:
        """Find an account as programs do, by name; sign in where there is none."""
        found = application.app.get_accounts(user)
        if not found:
            self._sign_in(application, user)
            found = application.app.get_accounts(user)
        for account in found:
            if account["username"].lower() != user:
                raise Crossed(f"{application.place.name}: {user} asked for, {account['username']} given")
        return found[0] if found else None

    def _sign_in(self, application: Application, user: str) -> None:
        try:
            code = application.codes[user].pop()
        except (KeyError, IndexError):
            return
        result = application.app.acquire_token_by_authorization_code(code, USERS, redirect_uri=BACK)
        self._seen(application, result, "signed in", subject=_of_user(user))

    def _silent(self, application: Application, user: str, *, force: bool) -> None:
        account = self._account(application, user)
        if account is None:
            return
        result = application.app.acquire_token_silent(USERS, account, force_refresh=force)
        self._seen(application, result, "silent", subject=_of_user(user))

    def _behalf(self, application: Application, rng: random.Random) -> None:
        assertion = f"an-assertion-{rng.randrange(6)}"
        result = application.app.acquire_token_on_behalf_of(assertion, rng.choice([OWN, USERS]))
        mark = hashlib.sha256(assertion.encode()).hexdigest()[:12]
        self._seen(application, result, "on behalf", subject=str(uuid.uuid5(uuid.NAMESPACE_URL, mark)))

    def _credential(self, rng: random.Random) -> None:
        application = self.applications[0]
        tenant, issuer = rng.choice(sorted(application.place.tenants.items()))
        token = self.credential.get_token(*OWN, tenant_id=tenant, enable_cae=rng.random() < 0.5).token
        self.judge(application, token, subject=_of_client(application.client), issuer=issuer)
        self.count("credential")

    def _function(self, rng: random.Random) -> None:
        user = rng.choice(self._where["users"])

        def ask() -> None:
            current_user.set(user)
            token = self.of_users.get_token(*OWN).token
            if not token.startswith(f"of.{user.partition('@')[0]}."):
                raise Crossed(f"{user} got {token}")

        contextvars.copy_context().run(ask)
        self.count("function")

    def _remove(self, application: Application, user: str) -> None:
        for account in application.app.get_accounts(user):
            application.app.remove_account(account)
            self.count("removed")

    def _claims(self, application: Application) -> None:
        result = application.app.acquire_token_for_client(
            OWN, claims_challenge='{"access_token":{"nbf":{"essential":true,"value":"1"}}}'
        )
        self._seen(application, result, "challenged", subject=_of_client(application.client))

    def _anew(self, application: Application) -> None:
        application.build()
        self.count("anew")

    async def tasks(self, seed: int, actions: int) -> None:
        """Use what is asyncio's in several tasks of one loop."""
        rng = random.Random(seed)
        own = [application for application in self.applications if application.face == "aio"]

        async def one() -> None:
            for _ in range(actions):
                application, user = rng.choice(own), rng.choice(self._where["users"])
                try:
                    if rng.random() < 0.4:
                        result = await application.around.acquire_token_for_client(OWN)
                        expected = _of_client(application.client)
                    else:
                        found = await application.around.get_accounts(user)
                        if not found:
                            continue
                        result = await application.around.acquire_token_silent(USERS, found[0])
                        expected = _of_user(user)
                    self._seen(application, result, "awaited", subject=expected)
                except Crossed as crossed:
                    self.crossings.append(str(crossed))
                except (ra.ProviderUnavailable, ra.StoreUnavailable, ra.Closed) as error:
                    self.count(f"failed: {type(error).__name__}")

        await asyncio.gather(*(one() for _ in range(8)))

    def fork(self, seed: int, actions: int) -> None:
        """Go on in a forked child, and take its findings over."""
        read, write = os.pipe()
        child = os.fork()
        if child == 0:
            try:
                os.close(read)
                self._lock = threading.Lock()
                self.tally, self.crossings = Counter(), []
                for application in self.applications:
                    application.codes = {}  # the parent redeems them
                rng = random.Random(seed)
                for _ in range(actions):
                    self.act(rng)
                told = json.dumps({"tally": self.tally, "crossings": self.crossings[:3]}).encode()
                with os.fdopen(write, "wb") as stream:
                    stream.write(told)
            finally:
                os._exit(0)
        os.close(write)
        with os.fdopen(read, "rb") as stream:
            told = stream.read()
        os.waitpid(child, 0)
        if not told:
            self.crossings.append("crashed: a forked child told nothing")
            return
        found = json.loads(told)
        with self._lock:
            self.tally.update({f"forked {what}": count for what, count in found["tally"].items()})
            self.crossings += found["crossings"]

    def run(self, actions: int, threads: int) -> None:
        """Make so many calls, by threads, tasks and children."""
        each = actions // (threads + 1)

        def work(number: int) -> None:
            rng = random.Random(self._seed * 100 + number)
            for _ in range(each):
                self.act(rng)

        workers = [threading.Thread(target=work, args=(number,)) for number in range(threads)]
        workers.append(threading.Thread(target=lambda: asyncio.run(self.tasks(self._seed, each // 8))))
        for worker in workers:
            worker.start()
        for number in range(4):
            time.sleep(0.2)
            self.fork(self._seed * 100 + 90 + number, each // 4)
        for worker in workers:
            worker.join()


def _function_of_users(scopes: Any) -> Any:
    user = current_user.get()
    return {"access_token": f"of.{user.partition('@')[0]}.{uuid.uuid4().hex}", "expires_in": 3600}


def _of_client(client: str) -> str:
    return str(uuid.uuid5(uuid.NAMESPACE_URL, f"client:{client}"))


def _of_user(user: str) -> str:
    return str(uuid.uuid5(uuid.NAMESPACE_URL, f"user:{user}"))


def _json(part: str) -> dict[str, Any]:
    decoded: dict[str, Any] = json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))
    return decoded


def main() -> None:
    where = json.loads(sys.stdin.readline())
    search = Search(where)
    search.run(where["actions"], where["threads"])
    with contextlib.suppress(BrokenPipeError):
        print(json.dumps({"tally": search.tally, "crossings": search.crossings[:5]}), flush=True)


main()
