"""How one token is verified: seen before? else strict text, rules, its key, its signature; drivers do the waiting."""

from __future__ import annotations

import dataclasses
import ssl
from collections.abc import Callable, Collection, Generator, Mapping, Sequence
from os import PathLike
from typing import Any, Final, Literal, TypeAlias

from .._engine.engine import Engine
from .._engine.single_flight import Outcome, WaitFor
from .._engine.steps import Step
from .._fleet.engines import engine_for
from .._policy.checks import called, require
from .._process import forks, observing
from .._wire.connection import HttpxWire
from ..errors import Closed
from ..events import ExpiredTokenAccepted, TokenOnDenyList, emit
from ..settings import Settings
from ..token import fingerprint
from .bound.binding import Binding, BindingOptions, came_bound, not_bound
from .bound.confirmation import Confirmation
from .claims import Claims
from .counted import count, counted, refused
from .deny import DenyFile, DenyList
from .errors import InvalidToken, VerificationUnavailable
from .jose.compact import LARGEST_TOKEN, Text, check_header, strict_json, take_apart
from .jose.signature import check_algorithms
from .keys.documents import pinned_from
from .keys.proving import proving
from .keys.sharing import release, shared_source
from .options import GraceOptions, KeyOptions
from .outage import OutageWatch, deserves_grace
from .rules.acceptance import Accepted, check, check_times, expired, types_for
from .rules.asked import Expected, check_asked
from .rules.content import claims_of, roles_in
from .rules.owners import owners_rules
from .seen import Remembered, SeenOptions, VerifiedTokens, digest_of
from .trust import Trust

__all__ = ["Verification", "Verify", "Verifying"]

#: Yields what takes time: the wait for a flight, or a call that may block; is sent what came of it.
Verifying = Generator[Step, Any, Claims]

#: What is on this machine isn't asked through another one, which would read and answer it in its place.
_DIRECT: Final = {"no_proxy": "localhost,127.0.0.0/8,::1"}

Verify: TypeAlias = bool | str | ssl.SSLContext | None


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
        roles_claim: str | Sequence[str] = "roles",
        client_as_audience: bool = False,
        binding: BindingOptions | None = None,
        settings: Settings | None = None,
        verify: Verify = True,
        proxies: Mapping[str, str] | None = None,
        timeout: float | tuple[float | None, float | None] | None = None,
    ) -> None:
        for name, value, kind in (
            ("keys", keys, KeyOptions),
            ("seen", seen, SeenOptions),
            ("grace", grace, GraceOptions),
            ("deny", deny, DenyList),
            ("binding", binding, BindingOptions),
            ("settings", settings, Settings),
        ):
            require(value is None or isinstance(value, kind), f"{name} must be {kind.__name__}(...), not {value!r}")
        self.rules = owners_rules(
            trusts,
            audience=audience,
            accepts=accepts,
            tenants=tenants,
            clients=clients,
            leeway=leeway,
            is_application=is_application,
            roles_claim=roles_claim,
            client_as_audience=client_as_audience,
            binding=binding,
        )
        require(
            accepts == "access" or grace is None, "grace is for access tokens: an ID token is used once, at sign-in"
        )
        require(
            grace is None or not any(trust.keys_alone for trust in trusts),
            "grace needs discovery: its probes look at the discovery document and the token endpoint, beside jwks_uri",
        )
        require(
            grace is None or seen is None or seen.tokens > 0,
            "grace is for tokens that were seen valid before the outage: let SeenOptions remember some",
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
        self.engine: Engine = engine_for(settings or Settings())
        self._clock = self.engine.clock
        self._binding = None if binding is None else Binding(binding, self._clock, leeway)
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
                    self._clock,
                    self.engine.settings.connect_timeout,
                    verify=verify,
                    proxies=_DIRECT if trust.plain else proxies,
                    timeout=timeout,
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
        self.issuer = trusts[0].issuers[0]
        self.served: observing.Count | None = None
        count(self)

    def after_fork(self) -> None:
        """Make it usable in a forked child."""
        self._seen.renew()

    # Not by a keyword alone: that would cost each call a twentieth.
    def seen(self, token: str, bound: bool = False) -> Claims | None:
        """Return the claims of a token that was verified before and still holds; None where it must be verified.

        Args:
            token: The token.
            bound: Whether one that is bound to a key will do, since its proof is checked afterwards, and it is counted.

        Raises:
            InvalidToken: It is on the deny-list.
            VerificationUnavailable: The owner's own check failed.
        """
        if not isinstance(token, str) or len(token) > LARGEST_TOKEN or not token.isascii():
            return None
        forks.notice()
        digest = digest_of(token)
        known = self._seen.find(digest)
        if known is None or (known.confirmation is not None and not bound):
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
        if deny.file is not None and self._deny_file.is_due(now):
            return None
        if known.deny_version != deny.current.version or deny.check is not None:
            try:
                self._check_denied(known)
            except (InvalidToken, VerificationUnavailable) as error:
                if not bound:
                    refused(error, self.issuer)
                raise
        claims = known.claims
        if claims.provenance is not view.provenance:
            known.claims = claims = dataclasses.replace(claims, provenance=view.provenance)
        served = self.served
        if served is not None and not bound:
            served.count += 1
        return claims

    def read(self, token: str) -> Text:
        """Read a token's text.

        Raises:
            InvalidToken: It isn't that of a token of this kind.
        """
        compact = take_apart(token)
        algorithm, kid = check_header(compact.header, self._types)
        return Text(compact, algorithm, kid, strict_json(compact.payload, "payload"))

    def judged(self, text: Text) -> Accepted:
        """Check all that can be told without a key and the time.

        Raises:
            InvalidToken: It is refused.
        """
        if text.algorithm not in self._algorithms:
            raise InvalidToken("algorithm", "the token's algorithm isn't one that is accepted")
        return check(text.compact.header, text.raw, self._trusts, self.rules)

    def trusts(self, issuer: object) -> bool:
        """Return whether tokens of an issuer may be accepted."""
        return isinstance(issuer, str) and any(trust.match(issuer) is not None for trust in self._trusts)

    def verifying(
        self, token: str, asked: Expected, text: Text | None = None, accepted: Accepted | None = None
    ) -> Verifying:
        """Verify a token, step by step; the drivers do the waiting.

        Args:
            token: The token.
            asked: What the call asks of it.
            text: The token as it was read, where it was.
            accepted: What the rules found out about it, where they were asked.

        Raises:
            InvalidToken: It is refused.
            VerificationUnavailable: Its key is unavailable.
        """
        return counted(self._verifying(token, asked, text, accepted), self.issuer)

    def _verifying(self, token: str, asked: Expected, text: Text | None, accepted: Accepted | None) -> Verifying:
        forks.notice()
        if self._closed:
            raise Closed("this verifier was closed: make a new one, or close it later")
        if self._binding is not None or asked.presented is not None:
            # It may be remembered; what came with it is new each time.
            claims = self.seen(token, bound=True)
            known = None if claims is None else self._seen.find(digest_of(token))
            if claims is not None and known is not None:
                yield from self._admitting(token, claims, known.confirmation, asked)
                return claims
        if text is None or accepted is None:
            text = self.read(token)
            accepted = self.judged(text)
        kid = text.kid
        if kid is None:
            raise InvalidToken("unknown_key", "the token names no key")
        try:
            check_times(accepted, self._clock.wall())
        except InvalidToken as error:
            if error.code != "expired" or not asked.grace:
                raise
            return (yield from self._by_grace(token, asked))
        source = self._sources[accepted.trust]
        key = yield from proving(
            source,
            issuer=text.raw["iss"],
            tenant=accepted.tenant,
            algorithm=text.algorithm,
            kid=kid,
            compact=text.compact,
        )
        claims = claims_of(text.raw, accepted, self.rules, source.current().provenance)
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
            seen_at=self._clock.monotonic() if before is None else before.seen_at,
            deny_version=-1,
            confirmation=accepted.confirmation,
        )
        yield from self._deny_file.reading()
        self._check_denied(known)
        for watch in self._watches.values():
            watch.start()
        # A wait may have taken its time.
        check_times(accepted, self._clock.wall())
        self._seen.put(digest, known, len(token))
        yield from self._admitting(token, claims, known.confirmation, asked)
        return claims

    def _admitting(
        self, token: str, claims: Claims, confirmation: Confirmation | None, asked: Expected
    ) -> Generator[Step, Any, None]:
        """Check what came with a good token, and what the call asks of it."""
        if self._binding is not None:
            yield from self._binding.checking(token, confirmation, asked.presented)
        elif came_bound(asked.presented):
            raise not_bound()
        check_asked(claims, asked.scopes, asked.roles, asked.app_only, asked.nonce, asked.any_scopes, asked.any_roles)

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
        # Roles that can't be read may be an administrator's.
        readable = roles_in(claims.raw, self.rules.roles_claim) is not None
        past = self._clock.wall() - claims.expires_at
        if (
            down_since is None
            or not readable
            or not deserves_grace(
                claims, options, past_expiry=past, seen_at=known.seen_at, down_since=down_since, now=now
            )
        ):
            raise expired()
        yield from self._admitting(token, claims, known.confirmation, asked)
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
            people, ids = (claims.object_id, claims.subject), (raw.get("uti"), raw.get("jti"))
            matched = current.match(known.kid, people, raw.get("sid"), ids) or deny.revoked.match(claims)
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
