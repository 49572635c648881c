"""What web frameworks share: the token in a request, and the answer to a request that may not go on.

request ──▶ one bearer token? ──▶ verified, with what the route asks for ──▶ Claims
                   └─────────────────────┴─▶ 401 or 403 with a challenge, 503 with Retry-After (RFC 6750)
"""

from .answers import Refusal, challenged, gravest, refused
from .guard import Decorator, Guard, public_paths
from .places import Arrived, TokenCookie, TokenHeader, TokenPlace, TokenQuery, TokenSubprotocol, bearer_token

__all__ = [
    "Arrived",
    "Decorator",
    "Guard",
    "Refusal",
    "TokenCookie",
    "TokenHeader",
    "TokenPlace",
    "TokenQuery",
    "TokenSubprotocol",
    "bearer_token",
    "challenged",
    "gravest",
    "public_paths",
    "refused",
]
