"""An MSAL application that may be built while its provider is down, and is ready when that is up."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, Self

from .._engine import schedule
from .._engine.single_flight import Outcome, carrying
from .._engine.threads import submit
from .._policy.endpoint import Endpoint, origin_of
from .._process import forks
from .._process.living import LiveObjects
from .._wire.exchange_context import time_left
from .._wire.http_client import Transport
from ..errors import AttemptTimeout, ConfigurationError
from .plans import Hit, Plan
from .rotation.trial import Rotation
from .session import Session

__all__ = ["LateBound", "Resilient", "applications"]


class Resilient:
    """What all of ours have beside what is MSAL's. State of ours begins with `_ra_`."""

    _ra_session: Session
    _ra_transport: Transport
    _ra_fast: tuple[Callable[[Any], Hit | None], Callable[[], float], Callable[[], float], dict[str, Any], str]

    def _ra_take(self, session: Session, transport: Transport) -> None:
        clock = session.engine.clock
        self.__dict__.update(
            _ra_session=session,
            _ra_transport=transport,
            # All that the way of a held token touches, one look-up away.
            _ra_fast=(session.memory.hits.get, clock.monotonic, clock.wall, session.home, session.cache_name),
        )

    def _ra_hit(self, call: Any) -> dict[str, Any] | None:
        """Answer a call from memory, by what tells it from others, if nothing but the time needs a look."""
        find, monotonic, wall, home, cache_name = self._ra_fast
        try:
            hit = find(call)
        except TypeError:
            return None
        if hit is not None:
            now = monotonic()
            if now < hit.due_at and wall() < hit.due_on and home[cache_name] is hit.cache:
                given = hit.given
                if given is not None:
                    given.count += 1
                answer = hit.answer.copy()
                answer["expires_in"] = int(hit.expires_at - now)
                return answer
        return None

    def _ra_keep_fresh(self, plan: Plan) -> None:
        """Pin the token of a plan, which the caller need not wait for."""
        entry = plan.entry
        if entry is None or entry.renew is None:
            raise ConfigurationError("keep_fresh takes a token that can be renewed without a caller")
        session, load = self._ra_session, plan.load

        def pin() -> None:
            if load is not None:
                load()
            schedule.keep_fresh(session.engine, entry)
            if session.closed:  # meanwhile
                schedule.release(entry)

        plan.acquisition.close()
        if load is None or session.watchable:
            pin()
        else:  # a cache of the owner's may be a file, and an event loop's thread may call this
            submit("keep_fresh", pin)

    def close(self) -> None:
        """Forget the tokens held in memory, end refreshes ahead, and close idle connections.

        MSAL's token cache stays as it is. Calls that want a token raise `Closed` from then on.
        """
        self._ra_session.close()
        self._ra_transport.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class LateBound(Resilient):
    """Keep MSAL's own initialisation apart from ours, since only MSAL's needs the discovery document."""

    client_id: str

    #: The object that has MSAL's state: this one, or the one that was wrapped.
    _ra_origin: Any
    #: The class of which exchanges make a passing copy.
    _ra_kind: type[Any]
    _ra_authority: str
    _ra_authorities: tuple[Endpoint, ...]
    _ra_bound: bool
    #: The credential that is replaced while this runs, and what MSAL makes of it for which endpoint; None for another.
    _ra_rotation: Rotation | None
    _ra_signers: dict[str, Any]

    def _ra_begin(self, session: Session, origin: Any, kind: type[Any], transport: Transport, authority: str) -> None:
        self._ra_take(session, transport)
        self.__dict__.update(
            _ra_origin=origin,
            _ra_kind=kind,
            _ra_authority=authority,
            _ra_authorities=(Endpoint(origin_of(authority), wire=transport.wire.identity),),
            _ra_bound=False,
        )
        renewed = self.__dict__.get("_ra_rotation") is not None
        session.name_lane(authority, calls_owner=renewed or _assertion_of(self, origin) is not None)
        _applications.add(self)

    def _ra_after_fork(self) -> None:
        """Replace MSAL's locks in a forked child: another thread of the parent may have held them."""
        state = self._ra_origin.__dict__
        if "_telemetry_lock" in state:
            state["_telemetry_lock"] = threading.Lock()
        for throttle in (self.__dict__.get("http_client"), state.get("http_client")):
            if throttle is not None:
                throttle._expiring_mapping._lock = threading.Lock()

    def _ra_bind(self) -> None:
        """Have MSAL's own initialisation behind us; only that needs the discovery document."""
        if self._ra_bound:
            return
        forks.notice()
        engine = self._ra_session.engine
        wait = time_left(engine)
        flight, mine = engine.flights.join(("bind", self._ra_session), engine.clock.monotonic() + wait + 1.0)
        if mine:
            outcome = Outcome()
            try:
                with carrying(flight.key):
                    self._ra_initialise()
            except BaseException as error:
                outcome = Outcome(error=error)
                raise
            finally:
                engine.flights.end(flight)
                flight.land(outcome)
            return
        landed = flight.wait(wait)
        if landed is None:
            raise AttemptTimeout(
                f"{self._ra_authority} gave no discovery document in time", authority=self._ra_authority
            )
        if landed.error is not None:
            raise landed.error

    def _ra_initialise(self) -> None:
        """Run MSAL's initialisation on this object; a wrapped one has had it."""
        raise NotImplementedError  # pragma: no cover - the drop-in classes have it

    def _ra_ready(self) -> None:
        """Note where tokens come from, now that MSAL knows."""
        origin = self._ra_origin
        clients = [origin.__dict__.get("_regional_client"), origin.__dict__.get("client")]
        endpoints = [c.configuration["token_endpoint"] for c in clients if c is not None]
        wire = self._ra_transport.wire.identity
        found = tuple(dict.fromkeys(Endpoint.of(endpoint, wire) for endpoint in endpoints))
        self.__dict__.update(_ra_authorities=found or self._ra_authorities, _ra_bound=True)


def _found_late(self: LateBound, name: str) -> Any:
    # Reached for what MSAL's initialisation would have set, and on a wrapper for all that is the original's.
    if name.startswith(("_ra_", "__")) or "_ra_origin" not in self.__dict__:
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
    if self._ra_origin is not self:
        return getattr(self._ra_origin, name)
    if not self._ra_bound and self.__dict__.get("_ra_initialising") != threading.get_ident():
        self._ra_bind()
        return object.__getattribute__(self, name)
    raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")


# Not in the class itself: to type checkers, it would have every attribute that anybody asks for.
LateBound.__getattr__ = _found_late  # type: ignore[attr-defined]


def _assertion_of(app: LateBound, origin: Any) -> Callable[[], Any] | None:
    """Find the owner's function that makes the application's assertions; None where MSAL makes them, or nobody does."""
    given = app.__dict__.get("_ra_arguments", {}).get("client_credential")
    client = origin.__dict__.get("client")
    made = given.get("client_assertion") if isinstance(given, dict) else getattr(client, "client_assertion", None)
    return made if callable(made) and not type(made).__module__.startswith("msal.") else None


#: The living ones, for a fork.
_applications: LiveObjects[LateBound] = LiveObjects()


def applications() -> list[LateBound]:
    """List the living applications of this process."""
    return _applications.all()
