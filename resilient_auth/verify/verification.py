"""How one token is verified: seen before? else strict text, rules, its key, its signature; drivers do the waiting."""

from __future__ import annotations

import dataclasses
import inspect
import ssl
from collections.abc import Callable, Collection, Generator, Mapping, Sequence
from os import PathLike
from typing import Any, Literal, TypeAlias

from .._engine.engine import Engine
from .._engine.single_flight import Outcome, WaitFor
from .._fleet.engines import engine_for
from .._policy.checks import called, require, require_number
from .._process import forks
from .._wire.connection import HttpxWire
from ..errors import Closed
from ..events import ExpiredTokenAccepted, TokenOnDenyList, emit
from ..settings import Settings
from ..token import fingerprint
from .claims import Claims
from .deny import DenyFile, DenyList
from .errors import InvalidToken, VerificationUnavailable
from .jose.compact import LARGEST_TOKEN, check_header, strict_json, take_apart
from .jose.jwk import VerificationKey
from .jose.signature import check_algorithms
from .keys.documents import pinned_from
from .keys.sharing import release, shared_source
from .options import GraceOptions, KeyOptions
from .outage import OutageWatch, deserves_grace
from .rules import Rules, check, check_asked, check_times, claims_of, expired, types_for
from .seen import Remembered, SeenOptions, VerifiedTokens, digest_of
from .trust import IS_GUID, Trust

__all__ = ["Expected", "Verification", "Verify", "Verifying"]

#: Yields a flight and for how many seconds to wait for it; is sent its outcome, or None when that time has passed.
Verifying = Generator[WaitFor, Outcome | None, Claims]

Verify: TypeAlias = bool | str | ssl.SSLContext | None


@dataclasses.dataclass(frozen=True, slots=True)
class Expected:
    """What one call asks of a token."""

    scopes: Collection[str] = ()
    roles: Collection[str] = ()
    app_only: bool | None = None
    nonce: str | None = None
    grace: bool = False


class Verification:
    """Verify tokens by one owner's settings; see `ClaimsVerifier`."""

    @called("settings", elsewhere="resilience")
    def __init__(
        self,
        trusts: tuple[Trust, ...],
        *,
        audience: str | Sequence[str],
        algorithms: Collection[str] = ("RS256",),
        accepts: Literal["access", "id"] = "access",
        tenants: Collection[str] = (),
        clients: Collection[str] = (),
        leeway: float = 60.0,
        keys: KeyOptions | None = None,
        pinned_keys: str | PathLike[str] | Mapping[str, Any] | None = None,
        seen: SeenOptions | None = None,
        grace: GraceOptions | None = None,
        deny: DenyList | None = None,
        is_application: Callable[[Mapping[str, Any]], bool] | None = None,
        settings: Settings | None = None,
        verify: Verify = True,
        proxies: Mapping[str, str] | None = None,
        timeout: float | tuple[float | None, float | None] | None = None,
    ) -> None:
        require_number("leeway", leeway, low=0.0, high=300.0)
        require(accepts in ("access", "id"), f'accepts must be "access" or "id", not {accepts!r}')
        require(
            accepts == "access" or grace is None, "grace is for access tokens: an ID token is used once, at sign-in"
        )
        for name, value, kind in (
            ("keys", keys, KeyOptions),
            ("seen", seen, SeenOptions),
            ("grace", grace, GraceOptions),
            ("deny", deny, DenyList),
            ("settings", settings, Settings),
        ):
            require(value is None or isinstance(value, kind), f"{name} must be {kind.__name__}(...), not {value!r}")
        require(
            is_application is None or (callable(is_application) and not inspect.iscoroutinefunction(is_application)),
            "is_application must be a plain function that takes a token's claims and returns True or False",
        )
        require(
            is_application is None or accepts == "access", "is_application is for access tokens: ID tokens are users'"
        )
        require(
            grace is None or seen is None or seen.tokens > 0,
            "grace is for tokens that were seen valid before the outage: let SeenOptions remember some",
        )
        for tenant in tenants if any(trust.needs_tid for trust in trusts) else ():
            require(
                isinstance(tenant, str) and IS_GUID.fullmatch(tenant.lower()) is not None,
                f"tenants must be the GUIDs that tokens carry in tid, not {tenant!r}",
            )
        options = keys or KeyOptions()
        accepted = check_algorithms(algorithms)
        pinned = None
        if pinned_keys is not None:
            pinned = pinned_from(pinned_keys, accepted, options.largest, options.most_keys)
            for trust in trusts:
                require(
                    not trust.templated or trust.any_tenant or trust.tenant is not None,
                    "pinned_keys alone don't identify the tenant: give its GUID as well (tenant_id, or as the tenant)",
                )
        self.rules = Rules(
            audiences=_names("audience", (audience,) if isinstance(audience, str) else audience, empty=False),
            kind=accepts,
            tenants=frozenset(tenant.lower() for tenant in _names("tenants", tenants)),
            clients=_names("clients", clients),
            leeway=leeway,
            is_application=is_application,
        )
        self.engine: Engine = engine_for(settings or Settings())
        self._clock = self.engine.clock
        self._types = types_for(accepts)
        self._algorithms = accepted
        self._trusts = trusts
        self._deny = deny or DenyList()
        self._deny_file = DenyFile(self.engine, self._deny, options.wait)
        self._grace = grace
        self._closed = False
        self._sources = {
            trust: shared_source(
                self.engine,
                HttpxWire(
                    self._clock, self.engine.settings.connect_timeout, verify=verify, proxies=proxies, timeout=timeout
                ),
                trust,
                algorithms=accepted,
                options=options,
                pinned=pinned,
                timeout=timeout,
            )
            for trust in trusts
        }
        self._watches = {} if grace is None else {s: OutageWatch(s, grace) for s in self._sources.values()}
        self._seen = VerifiedTokens(seen or SeenOptions())
        forks.renew_in_children(self)

    def after_fork(self) -> None:
        """Make it usable in a forked child."""
        self._seen.renew()

    def seen(self, token: str) -> Claims | None:
        """Return the claims of a token that was verified before and still holds; None where it must be verified.

        Raises:
            InvalidToken: It is on the deny-list.
            VerificationUnavailable: The owner's own check failed.
        """
        if not isinstance(token, str) or len(token) > LARGEST_TOKEN or not token.isascii():
            return None
        forks.notice()
        digest = digest_of(token)
        known = self._seen.find(digest)
        if known is None:
            return None
        view = known.source.view
        now = self._clock.monotonic()
        if now >= view.until:
            view = known.source.look()
        if view.keys.get(known.kid) is not known.key or self._closed:
            self._seen.drop(digest)
            return None
        if not known.begins <= self._clock.wall() < known.ends:
            return None
        deny = self._deny
        if deny.file is not None and self._deny_file.must_be_read(now):
            return None
        if known.deny_version != deny.current.version or deny.check is not None:
            self._check_denied(known)
        claims = known.claims
        if claims.provenance is not view.provenance:
            known.claims = claims = dataclasses.replace(claims, provenance=view.provenance)
        return claims

    def verifying(self, token: str, asked: Expected) -> Verifying:
        """Verify a token, step by step; the drivers do the waiting.

        Raises:
            InvalidToken: It is refused.
            VerificationUnavailable: Its key is unavailable.
        """
        forks.notice()
        if self._closed:
            raise Closed("this verifier was closed: make a new one, or close it later")
        compact = take_apart(token)
        algorithm, kid = check_header(compact.header, self._types)
        if algorithm not in self._algorithms:
            raise InvalidToken("algorithm", "the token's algorithm isn't one that is accepted")
        raw = strict_json(compact.payload, "payload")
        accepted = check(compact.header, raw, self._trusts, self.rules)
        if kid is None:
            raise InvalidToken("unknown_key", "the token names no key")
        try:
            check_times(accepted, self._clock.wall())
        except InvalidToken as error:
            if error.code != "expired" or not asked.grace:
                raise
            return (yield from self._by_grace(token, asked))
        source = self._sources[accepted.trust]
        view = source.current()
        key = view.keys.get(kid)
        if key is None:
            key = yield from source.obtaining(kid)
            view = source.current()
        if accepted.tenant and not accepted.trust.any_tenant and accepted.tenant != source.tenant:
            raise InvalidToken("tenant", "the token comes from another tenant")
        _check_key_issuer(key, accepted.trust, accepted.tenant, raw["iss"])
        key.verify(algorithm, compact.signature, compact.signed)
        claims = claims_of(raw, accepted, self.rules, view.provenance)
        digest = digest_of(token)
        before = self._seen.find(digest)
        known = Remembered(
            claims=claims,
            kid=kid,
            key=key,
            source=source,
            begins=accepted.begins,
            ends=accepted.ends,
            # Verified anew, as after a change of the deny-list's file, it was seen valid when it first was.
            seen_at=self._clock.monotonic() if before is None or before.key is not key else before.seen_at,
            deny_version=-1,
        )
        yield from self._deny_file.reading()
        self._check_denied(known)
        for watch in self._watches.values():
            watch.start()
        # A wait may have taken its time.
        check_times(accepted, self._clock.wall())
        self._seen.put(digest, known, len(token))
        check_asked(claims, asked.scopes, asked.roles, asked.app_only, asked.nonce)
        return claims

    def warming(self) -> Generator[WaitFor, Outcome | None, None]:
        """Get every issuer's keys, so that no token has to wait for them; step by step."""
        forks.notice()
        for source in self._sources.values():
            yield from source.obtaining(None)
        for watch in self._watches.values():
            watch.start()

    def _by_grace(self, token: str, asked: Expected) -> Verifying:
        """Accept an expired token where every condition of the owner's grace holds.

        Raises:
            InvalidToken: One doesn't.
        """
        known = self._seen.find(digest_of(token))
        options = self._grace
        if options is None or known is None:
            raise expired()
        source = known.source
        if source.current().keys.get(known.kid) is not known.key:
            raise expired()
        yield from self._deny_file.reading()
        self._check_denied(known)
        down_since = self._watches[source].down_since()
        now, claims = self._clock.monotonic(), known.claims
        past = self._clock.wall() - claims.expires_at
        if down_since is None or not deserves_grace(
            claims, options, past_expiry=past, seen_at=known.seen_at, down_since=down_since, now=now
        ):
            raise expired()
        check_asked(claims, asked.scopes, asked.roles, asked.app_only, asked.nonce)
        provenance = dataclasses.replace(source.current().provenance, grace=True, past_expiry=max(0.0, past))
        emit(
            ExpiredTokenAccepted(
                at=self._clock.wall(),
                issuer=claims.issuer,
                subject=fingerprint(claims.subject),
                client_id=claims.client_id,
                past_expiry=past,
                outage=now - down_since,
            )
        )
        return dataclasses.replace(claims, provenance=provenance)

    def _check_denied(self, known: Remembered) -> None:
        """Refuse what is on the deny-list, and note with which version it was compared."""
        deny, claims = self._deny, known.claims
        current = deny.current
        matched = ""
        if known.deny_version != current.version:
            raw = claims.raw
            ids = (raw.get("uti"), raw.get("jti"))
            matched = current.match(known.kid, (claims.object_id, claims.subject), claims.session_id, ids)
        if not matched and deny.check is not None:
            try:
                matched = "check" if deny.check(claims.raw) else ""
            except Exception as error:  # noqa: BLE001 - without an answer, nobody is let in
                name = type(error).__name__
                raise VerificationUnavailable(f"the deny-list's check failed with {name}", retry_after=5.0) from None
        if matched:
            emit(TokenOnDenyList(at=self._clock.wall(), issuer=claims.issuer, code=matched))
            raise InvalidToken("denied", "the token is on the deny-list")
        known.deny_version = current.version

    def close(self) -> None:
        """Forget what was verified, and end refreshes unless another verifier shares them."""
        forks.notice()
        if self._closed:
            return
        self._closed = True
        self._seen.renew()
        for watch in self._watches.values():
            watch.close()
        for source in self._sources.values():
            release(source)

    def __repr__(self) -> str:
        return f"issuers={[trust.issuers[0] for trust in self._trusts]}, audience={sorted(self.rules.audiences)}"


def _check_key_issuer(key: VerificationKey, trust: Trust, tenant: str, issuer: str) -> None:
    """Check that a key may sign for an issuer, where the key set says for whom it may.

    Entra's version 1 tokens are signed with keys whose issuer is the version 2 one of the same tenant.
    """
    if key.issuer is None:
        return
    meant = key.issuer.replace("{tenantid}", tenant) if tenant else key.issuer
    if meant != issuer and meant not in trust.filled(tenant):
        raise InvalidToken("key_issuer", "the token's key isn't for its issuer")


def _names(what: str, given: object, *, empty: bool = True) -> frozenset[str]:
    hint = f"{what} must be a collection of texts, not {given!r}"
    require(isinstance(given, Collection) and not isinstance(given, (str, bytes)), hint)
    found = frozenset(given) if isinstance(given, Collection) else frozenset()
    require(all(isinstance(one, str) and one for one in found), hint)
    require(empty or bool(found), f"{what} must not be empty: a token for any API would be accepted")
    return found
