"""Tokens that arrive: verified with keys that are kept through an outage, by rules that are strict.

token ──▶ seen before? ──▶ strict text ─▶ rules ─▶ key held? ─▶ signature ──▶ Claims
                                                    └─ no: one fetch for all who wait, seldom
"""

from .asynchronous import AsyncClaimsVerifier
from .bound.binding import BindingOptions
from .bound.presented import Presented, read_request
from .challenge import claims_challenge
from .claims import Claims, Provenance
from .deny import DenyList
from .errors import InvalidToken, VerificationUnavailable
from .http import Refusal, TokenCookie, TokenHeader, TokenQuery, TokenSubprotocol, bearer_token, refused
from .jose.signature import verify_signature
from .options import GraceOptions, KeyOptions
from .security_events.revocations import Revocations
from .seen import SeenOptions
from .several import AnyOf, AsyncAnyOf
from .verifier import ClaimsVerifier

__all__ = [
    "AnyOf",
    "AsyncAnyOf",
    "AsyncClaimsVerifier",
    "BindingOptions",
    "Claims",
    "ClaimsVerifier",
    "DenyList",
    "GraceOptions",
    "InvalidToken",
    "KeyOptions",
    "Presented",
    "Provenance",
    "Refusal",
    "Revocations",
    "SeenOptions",
    "TokenCookie",
    "TokenHeader",
    "TokenQuery",
    "TokenSubprotocol",
    "VerificationUnavailable",
    "bearer_token",
    "claims_challenge",
    "read_request",
    "refused",
    "verify_signature",
]
