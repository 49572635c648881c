"""The provider's own sign-out: where it is, and what it is told of who comes."""

from __future__ import annotations

from typing import Any, Final
from urllib.parse import parse_qsl, urlencode, urlsplit

from ..._engine.steps import Steps
from ..._policy.endpoint import origin_of
from ...errors import ProviderUnavailable, ResilientAuthError
from ...verify import InvalidToken
from ...verify.jose.compact import strict_json, take_apart
from ..providers import Party
from ..sessions.record import Who

__all__ = ["hint_of", "leading_out", "origins_of"]

#: Characters of an ID token that goes into an address: servers refuse longer ones than some 8,000.
_LONGEST_HINT: Final = 4096


def hint_of(app: Any, who: Who) -> str | None:
    """Return the ID token of a session that this process holds; None where it holds another one's, or a very long one.

    MSAL keeps a user's last one. The provider ends whichever session it names: it may be another browser's.
    """
    if who.account is None:
        return None
    wanted = {"home_account_id": who.account.get("home_account_id"), "client_id": app.client_id}
    try:
        held = [str(one.get("secret")) for one in app.token_cache.search("IdToken", query=wanted)]
    except ResilientAuthError:
        return None
    return next((one for one in reversed(held) if len(one) <= _LONGEST_HINT and _names(one, who.sid)), None)


def _names(token: str, sid: str | None) -> bool:
    """Return whether an ID token of ours is that of a session of the provider's."""
    try:
        return strict_json(take_apart(token).payload, "payload").get("sid") == sid
    except InvalidToken:
        return False


def leading_out(
    verifier: Any, who: Who, *, hint: str | None, client_id: str, back: str, state: str
) -> Steps[str | None]:
    """Return the address at which a user signs out at the provider; None where it isn't known, or there is none.

    Args:
        verifier: Of its ID tokens, which has its discovery document.
        who: Who comes.
        hint: Their ID token.
        client_id: The application's.
        back: Where they are to be led back to.
        state: What comes back with them.
    """
    for trust, source in verifier._core._sources.items():
        if trust.match(who.issuer) is None:
            continue
        if source.documents.facts is None:
            # Another process has verified the ID token: here the documents weren't needed yet.
            try:
                yield from source.obtaining(None)
            except ProviderUnavailable:
                continue
        facts = source.documents.facts
        if facts is None or facts.end_session_endpoint is None:
            continue
        parts = urlsplit(facts.end_session_endpoint)
        asked = {
            "id_token_hint": hint,
            "logout_hint": None if hint else who.claims.get("login_hint"),
            "client_id": client_id,
            "post_logout_redirect_uri": back,
            "state": state or None,
        }
        told = [(name, value) for name, value in asked.items() if isinstance(value, str)]
        query = urlencode([*parse_qsl(parts.query, keep_blank_values=True), *told])
        return str(parts._replace(query=query).geturl())
    return None


def origins_of(party: Party) -> tuple[str, ...]:
    """Return where a user may be led who signs out at a provider, as far as that is known."""
    facts = (source.documents.facts for source in party.verifier._core._sources.values())  # type: ignore[attr-defined]
    known = {origin_of(one.end_session_endpoint) for one in facts if one is not None and one.end_session_endpoint}
    return tuple(sorted({party.watch.authority} | known))
