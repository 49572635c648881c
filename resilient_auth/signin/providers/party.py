"""A provider as a running application deals with it."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from typing import Any, Final

from ... import msal
from ...settings import Settings
from ...verify import Claims
from .provider import IdentityProvider, Use
from .watch import ProviderWatch

__all__ = ["Party"]

_WELL_KNOWN: Final = "/.well-known/openid-configuration"


class Party:
    """The applications, the verifier and the watch of one provider."""

    def __init__(self, provider: IdentityProvider, settings: Settings) -> None:
        self.provider = provider
        wire = {"verify": provider.verify, "proxies": provider.proxies, "timeout": provider.timeout}
        self.verifier = provider.verifier(settings=settings, **wire)
        kind: Any = (
            msal.PublicClientApplication if provider.client_credential is None else msal.ConfidentialClientApplication
        )
        credential = {} if provider.client_credential is None else {"client_credential": provider.client_credential}
        capabilities = list(provider.client_capabilities) or None
        self.apps: dict[Use, Any] = {
            use: kind(
                provider.client_id,
                **{"oidc_authority" if provider.openid else "authority": authority},
                **credential,
                **wire,
                client_capabilities=capabilities,
                resilience=settings,
            )
            for use, authority in provider.authorities.items()
        }
        authority = provider.authorities["sign_in"].rstrip("/")
        version = "" if provider.openid else "/v2.0"
        self.watch = ProviderWatch(self.apps["sign_in"], f"{authority}{version}{_WELL_KNOWN}")

    def account_of(self, use: Use, result: Mapping[str, Any], claims: Claims) -> Mapping[str, Any] | None:
        """Return MSAL's account of who has just signed in; None where MSAL keeps none."""
        wanted = _home_account_id(result.get("client_info")) or claims.raw.get("sub")
        for username in (claims.username, None):
            accounts = self.apps[use].get_accounts(username) if username or username is None else []
            for account in accounts:
                if account.get("home_account_id") == wanted:
                    return dict(account)
        return None

    def close(self) -> None:
        """Let go of tokens, timers and connections."""
        for app in self.apps.values():
            app.close()
        self.verifier.close()


def _home_account_id(client_info: object) -> str | None:
    """Return how MSAL calls an account, of what came from the token endpoint beside the tokens."""
    if not isinstance(client_info, str):
        return None
    try:
        told = json.loads(base64.urlsafe_b64decode(client_info + "=" * (-len(client_info) % 4)))
        return f"{told['uid']}.{told['utid']}"
    except (ValueError, KeyError, TypeError):
        return None
