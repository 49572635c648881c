"""What is verified of tokens that are bound to a key, where the owner turned it on.

token ─▶ verified ─▶ cnf? ── none ──────────────────────────────▶ a bearer token, unless `required`
                      ├─ x5t#S256 ─▶ the certificate's thumbprint
                      └─ jkt ─▶ one proof ─▶ key, signature, request, token ─▶ time ─▶ nonce ─▶ seen for the first time
"""

from __future__ import annotations

import hmac
from collections.abc import Collection, Generator
from dataclasses import dataclass, field
from typing import Any

from jwt.utils import base64url_encode

from ..._engine.steps import Step
from ..._engine.threads import OnThread
from ..._policy.checks import require, require_number, require_store, require_whole
from ...clock import Clock
from ...errors import ProviderUnavailable, StoreUnavailable
from ...store import Store
from ..errors import InvalidToken, VerificationUnavailable
from ..jose.signature import check_algorithms
from .confirmation import CERTIFICATE, DPOP, Confirmation
from .presented import Presented
from .proof import Proof, digest, read_proof
from .replays import Full, Replays, name_of

__all__ = ["Binding", "BindingOptions", "not_bound"]

#: A proof's record in a store.
_KIND = "dpop-proof"
_SECRET_AT_LEAST = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class BindingOptions:
    """Choose to accept tokens that are bound to a key, by verifying what their bearer proves. Off unless given.

    Args:
        dpop: Verify proofs of possession (RFC 9449).
        certificates: Compare the client's certificate (RFC 8705), which each call gives.
        required: Refuse tokens that aren't bound to a key.
        algorithms: Those of proofs that are accepted.
        age: Seconds for which a proof is good after it was made; the verifier's `leeway` is added at both ends.
        most: Proofs that are remembered at the same time, to accept each once; one key's are a quarter of them at most.
            Where there is no place, the answer is 503.
        store: Remembers proofs for every process that is given the same one, at one write for each request. Without
            it a proof is good once in each process.
        nonce_secret: At least 32 random bytes, the same in each process: each proof must then have a nonce that was
            given by a 401 before. None for proofs without one.
        nonce_age: Seconds for which a nonce is good.
    """

    dpop: bool = False
    certificates: bool = False
    required: bool = False
    algorithms: Collection[str] = ("ES256", "EdDSA", "PS256", "RS256")
    age: float = 60.0
    most: int = 100_000
    store: Store | None = None
    nonce_secret: bytes | None = field(default=None, repr=False)
    nonce_age: float = 300.0

    def __post_init__(self) -> None:
        for name in ("dpop", "certificates", "required"):
            require(isinstance(getattr(self, name), bool), f"{name} must be True or False, not {getattr(self, name)!r}")
        require(self.dpop or self.certificates, "give dpop=True, certificates=True or both: else nothing is verified")
        check_algorithms(self.algorithms)
        require_number("age", self.age, low=1.0, high=600.0)
        require_whole("most", self.most, low=1, high=10_000_000)
        if self.store is not None:
            require_store(self.store)
        require(
            self.nonce_secret is None
            or (isinstance(self.nonce_secret, bytes) and len(self.nonce_secret) >= _SECRET_AT_LEAST),
            f"nonce_secret must be at least {_SECRET_AT_LEAST} random bytes, such as secrets.token_bytes(32)",
        )
        require_number("nonce_age", self.nonce_age, low=10.0, high=24 * 3600.0)
        require(
            self.dpop or (self.store is None and self.nonce_secret is None),
            "store and nonce_secret are for proofs of possession: give dpop=True as well",
        )

    @property
    def confirmed(self) -> frozenset[str]:
        """Return the members of `cnf` that are verified."""
        return frozenset([DPOP] * self.dpop + [CERTIFICATE] * self.certificates)

    @property
    def told(self) -> tuple[str, ...]:
        """Return the algorithms that challenges for a proof name; none where no proof is verified."""
        return tuple(sorted(self.algorithms)) if self.dpop else ()


class Binding:
    """Verify what the bearers of tokens prove, by one owner's settings.

    Args:
        options: The owner's.
        clock: Gives the time.
        leeway: Seconds by which clocks may differ.
    """

    def __init__(self, options: BindingOptions, clock: Clock, leeway: float) -> None:
        self._options = options
        self._clock = clock
        self._leeway = leeway
        self._replays = Replays(options.most)
        self._algorithms = frozenset(options.algorithms)
        #: What challenges say.
        self._told = options.told

    def checking(
        self, token: str, confirmation: Confirmation | None, presented: Presented | None
    ) -> Generator[Step, Any, None]:
        """Check what came with a token that was verified, step by step.

        Raises:
            InvalidToken: It doesn't prove what it must.
            VerificationUnavailable: It can't be told whether a proof came before.
        """
        presented = presented or Presented()
        if presented.dpop and (confirmation is None or confirmation.key is None):
            raise not_bound()
        if confirmation is None:
            return
        if confirmation.certificate is not None:
            self._check_certificate(confirmation.certificate, presented)
        if confirmation.key is not None:
            try:
                yield from self._proving(token, confirmation.key, presented)
            except InvalidToken as error:
                raise InvalidToken(error.code, error.message, dpop=self._told, nonce=error.nonce) from None

    def _check_certificate(self, thumbprint: str, presented: Presented) -> None:
        der = presented.der()
        if der is None:
            raise InvalidToken("certificate", "the token is bound to a certificate, and the request came without one")
        if not hmac.compare_digest(digest(der), thumbprint):
            raise InvalidToken("certificate", "the token is bound to another certificate than the request's")

    def _proving(self, token: str, key: str, presented: Presented) -> Generator[Step, Any, None]:
        if not presented.dpop:
            raise InvalidToken("sender_constrained", "the token is bound to a key, and came without a proof, as Bearer")
        proof = read_proof(
            presented.proofs,
            method=presented.method,
            url=presented.url,
            token=token,
            thumbprint=key,
            algorithms=self._algorithms,
        )
        seconds = self._good_for(proof)
        self._check_nonce(proof)
        yield from self._noting(name_of(key, proof.token_id), key, seconds)

    def _good_for(self, proof: Proof) -> float:
        """Return for how many seconds from now a proof is good."""
        age = self._options.age
        left = proof.issued_at + age + self._leeway - self._clock.wall()
        if not 0 < left <= age + 2 * self._leeway:
            raise InvalidToken("dpop_proof", "the DPoP proof is too old, or comes from a clock that is ahead")
        return left

    def _noting(self, name: bytes, key: str, seconds: float) -> Generator[Step, Any, None]:
        """Note that a proof was seen, here and where the owner's store tells the others."""
        now, store = self._clock.monotonic(), self._options.store
        try:
            first = self._replays.first(name, key, now=now, until=now + seconds)
        except Full as full:
            raise VerificationUnavailable(f"{full}: try again later", retry_after=self._options.age) from None
        if first and store is not None:
            ttl = max(1.0, seconds)
            try:
                first = (
                    yield OnThread(lambda: store.write(_KIND, name.hex(), b"1", ttl=ttl, expected=None))
                ) is not None
            except (StoreUnavailable, ProviderUnavailable) as error:
                self._replays.forget(name, key)  # who is told to try again may send the same once more
                why = "nobody can tell whether the DPoP proof was used before"
                raise VerificationUnavailable(f"{why} ({error.code})", retry_after=5.0) from None
        if not first:
            raise InvalidToken("dpop_replay", "the DPoP proof was used before")

    def _check_nonce(self, proof: Proof) -> None:
        """Check that a proof has a nonce that was given here a moment ago (RFC 9449, section 9)."""
        secret = self._options.nonce_secret
        if secret is None:
            return
        now = int(self._clock.wall())
        given, _, tag = (proof.nonce or "").partition(".")
        if hmac.compare_digest(tag.encode(), _tag(secret, given).encode()):
            # It is one of ours, and so a number.
            age = now - int(given, 16)
            if -self._leeway <= age <= self._options.nonce_age:
                return
        fresh = f"{now:016x}"
        raise InvalidToken(
            "dpop_nonce",
            "the DPoP proof must have the nonce in the DPoP-Nonce header",
            nonce=f"{fresh}.{_tag(secret, fresh)}",
        )


def came_bound(presented: object) -> bool:
    """Return whether a token came as one that is bound to a key.

    Raises:
        ConfigurationError: What came with it is something else.
    """
    require(
        presented is None or isinstance(presented, Presented),
        f"presented must be what read_request returns, or Presented(...), not {type(presented).__name__}",
    )
    return isinstance(presented, Presented) and bool(presented.dpop)


def not_bound() -> InvalidToken:
    """Return the error for a token that its client takes to be bound, and that isn't (RFC 9449, section 7.1)."""
    return InvalidToken("sender_constrained", "the token came as DPoP, and is bound to no key that is verified here")


def _tag(secret: bytes, given: str) -> str:
    mac = hmac.digest(secret, b"resilient-auth dpop nonce " + given.encode(), "sha256")
    return base64url_encode(mac).decode()
