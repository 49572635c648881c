"""The emulator as its users command it.

This is more than 400 lines because each command is one, with its description.
"""

from __future__ import annotations

import base64
import threading
import time
import uuid
from collections import deque
from collections.abc import Iterable, Mapping
from typing import Any, Unpack
from urllib.parse import parse_qsl, urlsplit

from .callouts.contracts import ENTRA
from .callouts.sending import CalloutOptions, CalloutOutcome, Question, events_claims, send
from .checks import check, check_text, check_whole
from .endpoints import EVERYTHING
from .faults import Fault
from .injection import Injection, Match
from .ledger import Ledger
from .provider.directory import User
from .provider.notices import Delivery, SignOutUris
from .provider.oauth_errors import Refusal
from .provider.realms import locate, tenant_id
from .runtime import Runtime
from .settings import Settings
from .wire.network import LOOPBACK

_CALLED = 1000


class InjectedFault:
    """A fault in force; `stop` ends it."""

    def __init__(self, running: Runtime, injection: Injection) -> None:
        self._running = running
        self._injection = injection

    @property
    def fault(self) -> Fault:
        """What goes wrong."""
        return self._injection.fault

    @property
    def endpoint(self) -> str:
        """Where it goes wrong."""
        return self._injection.endpoint

    def stop(self) -> None:
        """End this fault; ending it twice does nothing."""
        self._running.call(lambda: self._running.injections.remove(self._injection))


class Commanded(Settings):
    """The commands of `Emulator`."""

    def __init__(self) -> None:
        super().__init__()
        self.ledger = Ledger()
        self._runtime: Runtime | None = None
        self._called: deque[CalloutOutcome] = deque(maxlen=_CALLED)

    @property
    def url(self) -> str:
        """The identity provider's origin."""
        return f"https://localhost:{self._running.port('idp')}"

    @property
    def api_url(self) -> str:
        """The protected API's origin."""
        return f"https://localhost:{self._running.port('api')}"

    @property
    def metadata_url(self) -> str:
        """The origin of the managed-identity endpoints."""
        return f"http://{LOOPBACK}:{self._running.port('metadata')}"

    @property
    def proxy_url(self) -> str:
        """An HTTP proxy behind which every host is the identity provider."""
        return f"http://{LOOPBACK}:{self._running.port('proxy')}"

    @property
    def control_url(self) -> str:
        """The origin of the commands for other processes."""
        return f"http://{LOOPBACK}:{self._running.port('control')}"

    @property
    def ca_file(self) -> str:
        """The path of the certificate authority's PEM file."""
        return self._running.ca_file

    def authority(self, tenant: str) -> str:
        """Return the authority of a tenant, or of `"tenant/policy"`."""
        check_text("tenant", tenant, "contoso")
        return f"{self.url}/{tenant}"

    def fail(
        self,
        fault: Fault,
        endpoint: str = EVERYTHING,
        *,
        count: int | None = None,
        seconds: float | None = None,
        probability: float = 1.0,
        match: Match | None = None,
    ) -> InjectedFault:
        """Break an endpoint; requests that come after this returns meet the fault.

        Args:
            fault: What goes wrong.
            endpoint: Where; `"*"` is every endpoint of the identity provider.
            count: End after so many requests.
            seconds: End after so long.
            probability: Share of requests that fail, above 0 and up to 1.
            match: Which calls fail: a predicate, or the values of `Call`'s fields that they have.

        Returns:
            A handle whose `stop` ends this fault alone.

        Raises:
            ValueError: The endpoint is unknown, a number is out of range, or the fault doesn't fit.
        """

        def add() -> Injection:
            injection = Injection(fault, endpoint, count=count, probability=probability, match=match)
            return self._running.injections.add(injection, seconds)

        return InjectedFault(self._running, self._running.call(add))

    def schedule(self, plan: Iterable[tuple[float, float, Fault, str]]) -> None:
        """Plan faults as (start, stop, fault, endpoint), in seconds from now; all or none are planned."""
        entries = list(plan)
        self._running.call(lambda: self._running.injections.schedule(entries))

    def heal(self, endpoint: str | None = None) -> None:
        """End the faults of an endpoint, or all of them, and cancel those that are planned.

        Raises:
            ValueError: The endpoint is unknown.
        """
        self._running.call(lambda: self._running.injections.heal(endpoint))

    def deny(
        self,
        grant: str,
        error: str = "invalid_grant",
        description: str | None = None,
        suberror: str | None = None,
        status: int = 400,
    ) -> None:
        """Refuse a grant type, by its short name or URN, or every one by `"*"`, with an OAuth error.

        Raises:
            ValueError: There is no such grant type, or an argument is wrong.
        """
        check_text("error", error, "invalid_grant")
        check_whole("status", status, low=400, high=599)
        refusal = Refusal(error, 70000, description or "The provider was told to refuse this grant.", status, suberror)
        self._running.call(lambda: self._running.tokens.deny(grant, refusal))

    def allow(self, grant: str | None = None) -> None:
        """Stop refusing a grant type, or all of them.

        Raises:
            ValueError: There is no such grant type.
        """
        self._running.call(lambda: self._running.tokens.allow(grant))

    def roll_keys(self) -> str:
        """Publish a new signing key and sign with it; return its `kid`."""
        return self._running.call(self._running.keys.roll).kid

    def drop_old_keys(self) -> None:
        """Publish the newest signing key alone."""
        self._running.call(self._running.keys.drop_old)

    def sign(self, claims: dict[str, Any], header: dict[str, Any] | None = None) -> str:
        """Sign claims of one's own with the newest key, for tests of who verifies them; the ledger knows nothing of it.

        Args:
            claims: As they are to be.
            header: Members of the token's header, next to `alg`, `kid` and `x5t`, or in their place.
        """
        return self._running.call(lambda: self._running.keys.sign(claims, header))

    def call_out(
        self, url: str, event: str = "tokenIssuanceStart", **options: Unpack[CalloutOptions]
    ) -> CalloutOutcome:
        """Call an API as Entra or B2C does in the middle of a sign-in, on this thread, and judge its answer.

        Args:
            url: The API's.
            event: Entra's `tokenIssuanceStart`, `attributeCollectionStart`, `attributeCollectionSubmit`,
                `emailOtpSend` or `passwordSubmit`; B2C's `apiConnector` or `restProfile`.
            options: By name, as below.
            audience: For Entra: the API's own application, for which the token is.
            issuer: For Entra: the token's; that of the tenant at this emulator's own address when not given.
            tenant: Whose sign-in it is; `contoso` when not given.
            user: Who signs in, `ann@contoso.com` when not given; None for a sign-up.
            basic: For B2C: a name and a password.
            headers: Further headers, such as a client certificate's.
            data: Further members of what is sent: of `data` for Entra, claims for B2C.
            locale: The user's language.
            password: For `passwordSubmit`.
            encrypt_for: For `passwordSubmit`: the API's public key in PEM.
            correlation_id: Another request's, to send that again.
            timeout: Seconds that it waits; 1 for Entra and 20 for B2C when not given.
            retries: How often it asks again where no answer came in time.
            ca_file: Whom to trust; this emulator's own authority when not given.

        Raises:
            ValueError: An argument is wrong, or the user is unknown.
        """
        return self._ask(self._question(url, event, **options))

    def begin_call_out(self, url: str, event: str = "tokenIssuanceStart", **options: Unpack[CalloutOptions]) -> None:
        """Begin a call as `call_out` makes it, and don't wait: `called` tells what came of it."""
        question = self._question(url, event, **options)
        threading.Thread(
            target=self._ask, args=(question,), name="resilient-auth-emulator-callout", daemon=True
        ).start()

    @property
    def called(self) -> tuple[CalloutOutcome, ...]:
        """What came of the latest calls of `call_out`, a thousand at most."""
        return tuple(self._called)

    def register(
        self,
        client_id: str,
        *,
        secrets: Iterable[str] = (),
        certificates: Iterable[bytes] = (),
        federated: Iterable[Mapping[str, str]] = (),
    ) -> None:
        """Take these credentials of a client from now on, and no others; of other clients any secret will do.

        Args:
            client_id: The client's.
            secrets: Secrets.
            certificates: Certificates in PEM; the client signs its assertions with their keys.
            federated: Claims that an assertion must have, such as `iss`, `sub` and `aud`; this provider must have
                signed it, for a managed identity or by `sign`.

        Raises:
            ValueError: An argument is wrong.
        """
        self._running.call(lambda: self._running.clients.register(client_id, secrets, certificates, federated))

    def register_sign_out(
        self,
        client_id: str,
        *,
        backchannel: str | None = None,
        frontchannel: str | None = None,
        ca_file: str | None = None,
    ) -> None:
        """Tell a client of sign-outs from now on.

        Args:
            client_id: The client's.
            backchannel: Its `backchannel_logout_uri`, which is sent a logout token.
            frontchannel: Its `frontchannel_logout_uri`, which the sign-out page loads in a frame.
            ca_file: Whose certificates it has; the emulator's own authority is trusted too.

        Raises:
            ValueError: An argument is wrong.
        """
        check_text("client_id", client_id, "orders-app")
        for name, uri in (("backchannel", backchannel), ("frontchannel", frontchannel)):
            fits = uri is None or (isinstance(uri, str) and urlsplit(uri).scheme in ("http", "https"))
            check(fits, f"{name} must be an http(s) URL, not {uri!r}")
        self._running.call(
            lambda: self._running.notices.register(client_id, SignOutUris(backchannel, frontchannel, ca_file))
        )

    def end_sessions(self, username: str) -> None:
        """End all sessions of a user, as an administrator does; clients that want to know are sent logout tokens.

        Raises:
            ValueError: The user is unknown.
        """

        def end() -> None:
            for session in self._running.sessions.of_user(self._user(username).oid):
                self._running.sign_in.end(session)

        self._running.call(end)

    @property
    def deliveries(self) -> tuple[Delivery, ...]:
        """All logout tokens and security events that were sent, and what was answered."""
        return self._running.notices.deliveries

    def event_token(
        self, claims: dict[str, Any], header: dict[str, Any] | None = None, *, forge: str | None = None
    ) -> str:
        """Make a security event token (RFC 8417).

        Args:
            claims: What it says, beside `iat` and `jti`, which are made up where they are missing; None leaves one out.
            header: Members of its header, next to `typ`, which is `secevent+jwt`, or in its place.
            forge: How it is forged: `none`, `hs256`, `signature` or `payload`; None for not at all.

        Raises:
            ValueError: There is no such forgery.
        """
        given = {"iat": int(time.time()), "jti": uuid.uuid4().hex} | claims
        whole = {name: value for name, value in given.items() if value is not None}
        members = {"typ": "secevent+jwt"} | (header or {})
        return self._running.call(lambda: self._running.notices.sign(whole, members, forge))

    def transmit(
        self,
        url: str,
        token: str,
        *,
        bearer: str | None = None,
        content_type: str | None = None,
        ca_file: str | None = None,
    ) -> Delivery:
        """Push a security event token to a receiver (RFC 8935), once; return what was answered.

        Args:
            url: The receiver's endpoint.
            token: What `event_token` made, or anything else.
            bearer: A token to authenticate with.
            content_type: In place of `application/secevent+jwt`.
            ca_file: Whose certificates the receiver has; the emulator's own authority is trusted too.

        Raises:
            ValueError: The URL isn't one.
        """
        return self._running.notices.send(
            "event", url, token, content_type=content_type, bearer=bearer, ca_file=ca_file
        )

    def transmit_soon(self, url: str, token: str, **options: Any) -> None:
        """Do as `transmit`, on a thread of its own; `deliveries` tells what came of it."""
        self._running.notices.send_soon("event", url, token, **options)

    def add_user(self, username: str, password: str | None = "pw", oid: str | None = None) -> User:  # noqa: S107
        """Create or replace a user, whose home is the tenant of the name's domain.

        Raises:
            ValueError: An argument is wrong.
        """
        check_text("username", username, "ann@contoso.com")
        for name, value in (("password", password), ("oid", oid)):
            check(value is None or isinstance(value, str), f"{name} must be a text or None, not {type(value).__name__}")
        return self._running.call(lambda: self._running.directory.add_user(username, password, oid))

    def revoke(self, subject_or_client_id: str, *, refresh_tokens: bool = False) -> None:
        """Revoke the access tokens that a user (by name or object id) or a client got so far.

        Args:
            subject_or_client_id: A user name, an object id or a client id.
            refresh_tokens: Refuse their refresh tokens too, so that the user must sign in again.

        Raises:
            ValueError: There is no user of this name.
        """
        check_text("subject_or_client_id", subject_or_client_id, "ann@contoso.com")

        def revoke() -> None:
            if "@" in subject_or_client_id:
                self._user(subject_or_client_id)
            user = self._running.directory.find_user(subject_or_client_id)
            key = user.oid if user else subject_or_client_id
            self.ledger.revoke(key)
            if refresh_tokens:
                self._running.directory.revoke_refresh_tokens(key)

        self._running.call(revoke)

    def approve_device(self, user_code: str, username: str) -> None:
        """Sign a user in at the device that shows a code.

        Raises:
            ValueError: The user is unknown, or no device waits with this code.
        """
        self._running.call(lambda: self._running.directory.approve_device(user_code, self._user(username)))

    def sign_in(self, auth_uri: str, username: str) -> dict[str, str]:
        """Sign a user in at an authorization URL, as a browser would.

        Returns:
            The parameters of the redirect: `code`, `state` and so on.

        Raises:
            ValueError: The user is unknown, or the URL isn't one of an authorization endpoint.
        """
        check_text("auth_uri", auth_uri, f"{self.url}/contoso/oauth2/v2.0/authorize?client_id=...")
        target = urlsplit(auth_uri)
        asked = dict(parse_qsl(target.query, keep_blank_values=True))
        endpoint, realm = locate(target.netloc.lower(), tuple(filter(None, target.path.split("/"))), asked)
        if endpoint != "authorize" or realm is None or "client_id" not in asked:
            raise ValueError("this isn't the URL of an authorization request")
        return self._running.call(lambda: self._running.sign_in.grant(asked, realm, self._user(username)))

    def state(self) -> dict[str, Any]:
        """Return addresses, settings and the faults in force, ready for JSON."""
        return {
            "url": self.url,
            "api_url": self.api_url,
            "metadata_url": self.metadata_url,
            "proxy_url": self.proxy_url,
            "control_url": self.control_url,
            "ca_file": self.ca_file,
            "token_lifetime": self.token_lifetime,
            "refresh_in": self.refresh_in,
            "faults": self._running.call(self._running.injections.describe),
        }

    def _question(
        self,
        url: str,
        event: str,
        *,
        audience: str = "",
        issuer: str | None = None,
        tenant: str = "contoso",
        user: str | None = "ann@contoso.com",
        basic: tuple[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        timeout: float | None = None,
        ca_file: str | None = None,
        **about: Any,
    ) -> Question:
        known = None if user is None else self._user(user)
        sent = dict(headers or {})
        tid = tenant_id(tenant)
        if event in ENTRA and "Authorization" not in sent:
            issued = {"iss": issuer or f"{self.url}/{tid}/v2.0", "tid": tid, "aud": audience}
            sent["Authorization"] = f"Bearer {self.sign(events_claims(issued))}"
        elif basic is not None:
            sent["Authorization"] = f"Basic {base64.b64encode(':'.join(basic).encode()).decode()}"
        person = None if known is None else {"id": known.oid, "mail": known.username, "displayName": known.name}
        waits = timeout or (1.0 if event in ENTRA else 20.0)
        return Question.about(event, url, tid, person, sent, waits, ca_file or self.ca_file, **about)

    def _ask(self, question: Question) -> CalloutOutcome:
        outcome = send(question)
        self._called.append(outcome)
        return outcome

    def _user(self, username: str) -> User:
        user = self._running.directory.find_user(username)
        if user is None:
            raise ValueError(f"there is no user {username!r}: add_user first")
        return user

    @property
    def _running(self) -> Runtime:
        if self._runtime is None:
            raise RuntimeError("the emulator isn't running: use it as a context manager or call start()")
        return self._runtime
