"""Assertions in place of a secret: another token says who the application is (G24), and may be got by one in its turn.

    managed identity ─▶ application ─▶ agent ─▶ user        each link's token is the next one's client assertion
        └──── 1/3 ────┴───── 1/3 ────┴── 1/3 ──▶            of the time that the last exchange has left

Each link has its own memory, refresh ahead and breaker. What fails in one is told as that link's failure, and not as
one of the application that it was for.
"""

from __future__ import annotations

import contextvars
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

import msal

from .._engine.acquire import patience_of, restore, wait_at_most
from .._engine.engine import Engine
from .._msal.managed_identity import ManagedIdentityClient, wrap_managed_identity
from .._msal.methods import ResilientApplication
from .._msal.wrapped import Awaited, wrap
from .._policy.checks import called, check_scopes, require
from .._process.small_file import Reading, read_anew
from .._wire.exchange_context import current
from ..errors import AssertionUnavailable, ProviderUnavailable
from ..settings import Settings

__all__ = ["assertion_from_application", "assertion_from_file", "assertion_from_managed_identity"]

_FILE = "AZURE_FEDERATED_TOKEN_FILE"
_AUDIENCE = "api://AzureADTokenExchange"
_LARGEST = 1 << 16
#: Seconds that a link is given at least: with less it couldn't even tell what is wrong.
_SHORTEST = 0.05

#: The monotonic time by which the link that is under way is to have answered.
_ends: contextvars.ContextVar[float | None] = contextvars.ContextVar("resilient_auth_assertion_ends", default=None)


class Assertion:
    """A function that MSAL takes as `client_assertion`, and calls at each exchange."""

    #: Who gives it; for messages.
    link: str
    #: How many links there are up to it.
    depth = 1

    def __call__(self) -> str:
        """Return the assertion."""
        raise NotImplementedError  # pragma: no cover - each kind has it

    def close(self) -> None:
        """Let go of what was made for it; what was given stays open for its owner."""

    def __repr__(self) -> str:
        return f"<assertion from {self.link}>"

    def _unavailable(self, reason: str, error: ProviderUnavailable | None = None) -> AssertionUnavailable:
        if isinstance(error, AssertionUnavailable):  # a link before this one, which has told its name
            return AssertionUnavailable(
                error.message, link=error.link, authority=error.authority, retry_after=error.retry_after
            )
        message = f"no assertion could be had from {self.link}, and so the provider wasn't asked: {reason}"
        authority, retry_after = ("", None) if error is None else (error.authority, error.retry_after)
        return AssertionUnavailable(message, link=self.link, authority=authority, retry_after=retry_after)


class _FromFile(Assertion):
    def __init__(self, path: str) -> None:
        self.link = f"file {path}"
        self._path = path
        self._known: Reading | None = None

    def __call__(self) -> str:
        try:
            reading = read_anew(self._path, _LARGEST, self._known)
        except OSError as error:
            raise self._unavailable(error.strerror or type(error).__name__) from None
        except ValueError as error:
            raise self._unavailable(str(error)) from None
        self._known = reading
        text = reading.data.strip()
        if not text:
            raise self._unavailable("it is empty")
        if not text.isascii() or len(text.split()) != 1:
            raise self._unavailable("it doesn't hold one token")
        return text.decode("ascii")


class _Exchanged(Assertion):
    """What another exchange gives: held, refreshed ahead, and waited for as long as this link's share lasts.

    Args:
        link: Who gives it.
        engine: Whose time it takes.
        ask: Asks for it.
        keep_fresh: Has it there before it is needed.
        depth: How many links there are up to it.
        made: The client that was made for it.
    """

    def __init__(
        self,
        link: str,
        engine: Engine,
        ask: Callable[[], Any],
        keep_fresh: Callable[[], None],
        *,
        depth: int = 1,
        made: ManagedIdentityClient | None = None,
    ) -> None:
        self.link, self.depth = link, depth
        self._engine, self._ask, self._keep_fresh, self._made = engine, ask, keep_fresh, made
        self._pinned = False

    def close(self) -> None:
        if self._made is not None:
            self._made.close()

    def __call__(self) -> str:
        try:
            with self._in_its_share():
                result = self._ask()
        except ProviderUnavailable as error:
            raise self._unavailable(error.message, error) from None
        if not isinstance(result, Mapping) or "access_token" not in result:
            said = result if isinstance(result, Mapping) else {}
            told = [str(said[name]) for name in ("error", "error_description") if said.get(name)]
            raise self._unavailable(": ".join(told) or "it gave no token")
        if not self._pinned:
            # From now on it is there before it is needed: with no traffic too, and while this link fails.
            self._pinned = True
            self._keep_fresh()
        return str(result["access_token"])

    @contextmanager
    def _in_its_share(self) -> Iterator[None]:
        """Split what the exchange behind has left among the links up to this one and itself."""
        clock, exchange_context = self._engine.clock, current()
        now = clock.monotonic()
        ends = [_ends.get(), None if exchange_context is None else exchange_context.deadline]
        left = min([end - now for end in ends if end is not None and end > now], default=self._engine.settings.deadline)
        share = max(min(left, patience_of(left)) * self.depth / (self.depth + 1), _SHORTEST)
        token = _ends.set(now + share)
        try:
            with wait_at_most(min(share, 3600.0)):
                yield
        finally:
            restore(_ends, token)


def assertion_from_file(path: str | os.PathLike[str] | None = None) -> Assertion:
    """Return a function that reads a client assertion from a file, which is replaced as it nears its end (G24).

    Give it as `client_credential={"client_assertion": ...}`. The file is looked at before each exchange, and read again
    when it is another one; so Kubernetes' projected tokens are taken up as they rotate.

    Args:
        path: The file's; None for what `AZURE_FEDERATED_TOKEN_FILE` names, as for a workload identity.

    Raises:
        ConfigurationError: No path is given, and none is in the environment.
    """
    require(
        path is None or (isinstance(path, (str, os.PathLike)) and bool(os.fspath(path))),
        f"path must be that of a file with an assertion, not {path if path == '' else type(path).__name__!r}",
    )
    found = os.environ.get(_FILE) if path is None else os.fsdecode(os.fspath(path))
    require(
        bool(found),
        f"path must name a file with an assertion: {_FILE} isn't set. Is the pod's service account federated?",
    )
    return _FromFile(str(found))


@called("settings", elsewhere="resilience")
def assertion_from_managed_identity(
    managed_identity: Any = None, *, audience: str = _AUDIENCE, settings: Settings | None = None
) -> Assertion:
    """Return a function that has a managed identity's token for a client assertion (G24).

    Give it as `client_credential={"client_assertion": ...}`. The application needs a federated credential whose subject
    is the managed identity's object id. The token is held and refreshed ahead: it is there while the endpoint fails.

    Args:
        managed_identity: MSAL's `SystemAssignedManagedIdentity` or `UserAssignedManagedIdentity`, or a client of it;
            None for the system-assigned one.
        audience: Of the federated credential; other clouds have their own, such as `api://AzureADTokenExchangeUSGov`.
        settings: For a client that isn't resilient already.

    Returns:
        The function. Its `close()` lets go of a client that was made for it.

    Raises:
        ConfigurationError: An argument is wrong; raised before any network call.
    """
    require(isinstance(audience, str) and bool(audience.strip()), f"audience must be a resource such as {_AUDIENCE!r}")
    client = msal.SystemAssignedManagedIdentity() if managed_identity is None else managed_identity
    if isinstance(client, Mapping) and client.get("ManagedIdentityIdType"):
        client = ManagedIdentityClient(client, resilience=settings)
    require(
        isinstance(client, msal.ManagedIdentityClient),
        "managed_identity must be msal.SystemAssignedManagedIdentity(), msal.UserAssignedManagedIdentity(...) or a "
        f"ManagedIdentityClient, not {type(managed_identity).__name__}",
    )
    if not isinstance(client, ManagedIdentityClient):
        client = wrap_managed_identity(client, settings)
    resource = audience.strip().removesuffix("/.default")
    return _Exchanged(
        f"managed identity {client._managed_identity.get('Id') or ''}".rstrip(),
        client._ra_session.engine,
        partial(client.acquire_token_for_client, resource=resource),
        partial(client.keep_fresh, resource=resource),
        made=None if client is managed_identity else client,
    )


@called("settings", elsewhere="resilience")
def assertion_from_application(
    app: Any, *, fmi_path: str | None = None, audience: str = _AUDIENCE, settings: Settings | None = None
) -> Assertion:
    """Return a function that has another application's token for a client assertion, as agents have their blueprint's.

    Give it as `client_credential={"client_assertion": ...}`, or as the `assertion` of
    `acquire_token_by_user_federated_identity_credential`.

    Args:
        app: A confidential client application.
        fmi_path: For whom the token is, where that is another identity than the application: an agent's client id.
        audience: As for a managed identity.
        settings: For an application that isn't resilient already.

    Raises:
        ConfigurationError: An argument is wrong; raised before any network call.
    """
    app = app._app if isinstance(app, Awaited) else app
    require(
        isinstance(app, msal.ConfidentialClientApplication),
        f"app must be a ConfidentialClientApplication, not {type(app).__name__}",
    )
    require(
        fmi_path is None or (isinstance(fmi_path, str) and bool(fmi_path)),
        f"fmi_path must be the client id of whom the token is for, not {fmi_path!r}",
    )
    require(isinstance(audience, str), f"audience must be a resource such as {_AUDIENCE!r}")
    (scope,) = check_scopes([f"{audience.strip().removesuffix('/.default')}/.default"])
    ours: Any = app if isinstance(app, ResilientApplication) else wrap(app, resilience=settings)
    given = ours.__dict__.get("_ra_arguments", {}).get("client_credential")
    before = given.get("client_assertion") if isinstance(given, Mapping) else None
    return _Exchanged(
        f"application {ours.client_id} at {ours._ra_authority}",
        ours._ra_session.engine,
        partial(ours.acquire_token_for_client, [scope], fmi_path=fmi_path),
        lambda: ours._ra_keep_fresh(ours._ra_for_client([scope], None, fmi_path, None, {})),
        depth=1 + (before.depth if isinstance(before, Assertion) else 0),
    )
