"""Signed-in users of web applications: sign-in, and sessions that outlive an outage of the provider (G12, G13).

request ──▶ session in the store? ─ live ───────────────────────▶ the page
              │ past its end, provider down, not extended yet ─▶ the page, marked, and told by an event
              │ past its end, provider well ──▶ a sign-in without questions
              └ none ──▶ provider well? ─ yes ─▶ redirect to it
                                        └ no ──▶ 503 that says so, and the owner's other ways to sign in

What decides is here, without I/O; the frameworks' faces are `SignIn` in `resilient_auth.integrations`.
"""

from .codes import OneTimeCodes
from .options import SignInOptions, SignOutOptions
from .pages import Choice, Field, Page
from .providers import IdentityProvider
from .sessions import DevelopmentStore, Session, SessionOptions, Sessions, Who
from .signals import SignalsReceiver
from .user import SignInNeeded, User

__all__ = [
    "Choice",
    "DevelopmentStore",
    "Field",
    "IdentityProvider",
    "OneTimeCodes",
    "Page",
    "Session",
    "SessionOptions",
    "Sessions",
    "SignInNeeded",
    "SignInOptions",
    "SignOutOptions",
    "SignalsReceiver",
    "User",
    "Who",
]
