"""Verified tokens in Django: decorators for views, middlewares and users, both for threads and for asyncio.

    verifier = resilient_auth.ClaimsVerifier.for_entra(...)

    @authenticated(verifier, scopes="orders.read")
    def read(request):
        return JsonResponse({"for": request.claims.subject})

`django.backend` has an authentication backend, `django.rest` the classes for Django REST framework (extra `drf`).

Needs the extra: `pip install 'resilient-auth[django]'`.
"""

from ..._process.extras import raise_missing

try:
    from ..callout_routes.django import mount_callout
    from ..health_routes.django import mount_health
    from ..signals.django import mount_signals
    from ..signing_in.django import SignIn
    from ..status_page.django import mount_status_page
    from .errors import handle_errors, install
    from .guarding import authenticated, challenge, claims_middleware, requires
    from .users import ClaimsUser, from_backends
except ImportError as error:
    raise_missing(__name__, "django", error)

__all__ = [
    "ClaimsUser",
    "SignIn",
    "authenticated",
    "challenge",
    "claims_middleware",
    "from_backends",
    "handle_errors",
    "install",
    "mount_callout",
    "mount_health",
    "mount_signals",
    "mount_status_page",
    "requires",
]
