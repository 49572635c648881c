"""The owner's other ways in while no provider can be reached: a one-time code, or as a guest (G12)."""

from __future__ import annotations

import logging
import secrets
from collections.abc import Mapping
from typing import Any, Final

from .._engine.steps import Steps
from .._engine.threads import submit
from ..errors import Overloaded, ResilientAuthError, StoreUnavailable
from .codes import CodeBook
from .messages import Answer, Arrival, leading_to
from .pages import Choice, Field, Page
from .sessions.calls import StoreCall
from .sessions.record import GUEST, Who
from .signing_in import SigningIn
from .site import Site
from .user import ONE_TIME_CODE

__all__ = ["Alternates"]

_log = logging.getLogger("resilient_auth")
_LABEL: Final = "one-time code"


class Alternates:
    """Let people in without a provider, where the owner has allowed that, and only while the provider is down."""

    def __init__(self, site: Site, signing_in: SigningIn) -> None:
        self._site = site
        self._signing_in = signing_in

    def guest(self, arrival: Arrival) -> Steps[Answer]:
        """Answer the form by which a visitor goes on as a guest."""
        elsewhere = yield from self._elsewhere(arrival)
        if elsewhere is not None:
            return elsewhere
        who = Who(provider=GUEST, issuer=self._site.origin, subject=secrets.token_hex(16), name="Guest")
        admitted = self._signing_in.admit(arrival, who, self._site.next_of(arrival), self._site.primary)
        return (yield from admitted)

    def ask(self, arrival: Arrival) -> Steps[Answer]:
        """Answer the page that asks for an address, and the form that is sent from there."""
        site, codes = self._site, self._site.codes
        elsewhere = yield from self._elsewhere(arrival)
        if elsewhere is not None:
            return elsewhere
        next_path = site.next_of(arrival)
        address = (arrival.only("address") or "").strip()
        if arrival.method != "POST" or not address or codes is None:
            address_field = Field("address", "Your email address", "email", autocomplete="email")
            choice = self._form("send_code", "Send the code", "/code", next_path, address_field)
            text = "While the service that signs you in can't be reached, we can send a code to your email address."
            page = Page(
                kind="code_wanted", status=200, title="Sign in with a one-time code", text=text, choices=(choice,)
            )
            return site.show(arrival, page)
        body = {"address": address[:254], "next": next_path}
        try:
            cookies = yield StoreCall(lambda: site.flows.begin(arrival, _LABEL, body))
            if cookies is not None:
                # For nobody who waits: the answer takes as long for an address that isn't known.
                submit("one-time codes", lambda: _send(codes, address))
        except StoreUnavailable as error:
            return site.store_unavailable(arrival, error)
        except Overloaded as error:
            return site.unavailable(arrival, site.primary, error.retry_after, next_path)
        if cookies is None:
            return site.refused(arrival, "too_large", "This address is too long.")
        return self._code_page(arrival, next_path).with_cookies(*cookies)

    def check(self, arrival: Arrival) -> Steps[Answer]:
        """Answer the form with the code that was sent."""
        site, codes = self._site, self._site.codes
        if codes is None or not site.is_own(arrival):
            return site.refused(arrival, "cross_site", "This form is from elsewhere. Please start here.")
        code = "".join((arrival.only("code") or "").split())

        def redeem() -> tuple[str, Mapping[str, Any] | None] | None:
            begun, _ = site.flows.open(arrival, _LABEL)
            if begun is None:
                return None
            good = code.isascii() and code.isdigit() and len(code) == codes.options.digits
            return begun["next"], codes.redeem(begun["address"], code) if good else None

        try:
            redeemed = yield StoreCall(redeem)
        except StoreUnavailable as error:
            return site.store_unavailable(arrival, error)
        if redeemed is None:
            return site.refused(arrival, "unknown_state", "This took too long. Please start again.")
        next_path, claims = redeemed
        if claims is None:
            return self._code_page(arrival, next_path, wrong=True)
        who = _known(claims, site.origin)
        return (yield from self._signing_in.admit(arrival, who, next_path, site.primary))

    def _elsewhere(self, arrival: Arrival) -> Steps[Answer | None]:
        """Return what is answered where this is no way in now; None where it is one."""
        site = self._site
        if arrival.method == "POST" and not site.is_own(arrival):
            return site.refused(arrival, "cross_site", "This form is from elsewhere. Please start here.")
        sight = yield from site.primary.watch.looking()
        if sight.down:
            return None
        # The provider works: it is the way in.
        return leading_to(site.sign_in_path(site.next_of(arrival)))

    def _code_page(self, arrival: Arrival, next_path: str, *, wrong: bool = False) -> Answer:
        code = Field("code", "The code", "text", autocomplete="one-time-code")
        choices = (
            self._form("sign_in", "Sign in", "/code/check", next_path, code),
            Choice("send_code", "Send another code", self._site.sign_in_path(next_path, "/code")),
        )
        told = "If we know that address, we have sent a code to it. Please type it in here, in this browser."
        text = "That isn't the code, or it has expired. Please look again, or have another one sent." if wrong else told
        page = Page(kind="code_sent", status=400 if wrong else 200, title="Type in the code", text=text,
                    code="wrong_code" if wrong else "", choices=choices)  # fmt: skip
        return self._site.show(arrival, page)

    def _form(self, kind: str, label: str, below: str, next_path: str, field: Field) -> Choice:
        action = f"{self._site.prefix}{self._site.options.sign_in_path}{below}"
        return Choice(kind, label, action, (field, Field("next", value=next_path)))


def _send(codes: CodeBook, address: str) -> None:
    """Send a code, on a thread; nobody waits who could be told how it went."""
    try:
        codes.begin(address)
    except ResilientAuthError as error:
        _log.error("a one-time code wasn't sent: %s", error)
    except Exception as error:  # noqa: BLE001 - the owner's code, whose errors may quote an address
        _log.error("a one-time code wasn't sent: %s", type(error).__name__)


def _known(claims: Mapping[str, Any], origin: str) -> Who:
    """Return who the owner says that the user of an address is; ended with the provider's sessions of the same."""
    given = {
        name: str(claims[name])
        for name in ("iss", "sub", "oid", "tid", "name", "preferred_username")
        if claims.get(name)
    }
    return Who(
        provider=ONE_TIME_CODE,
        issuer=given.get("iss", origin),
        subject=given["sub"],
        oid=given.get("oid"),
        tenant=given.get("tid"),
        name=given.get("name", ""),
        username=given.get("preferred_username", ""),
        claims=claims,
    )
