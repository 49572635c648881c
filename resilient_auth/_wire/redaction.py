"""Keep secrets out of what MSAL logs, and lines that a provider has forged."""

from __future__ import annotations

import logging
import re

from ..errors import printable

__all__ = ["install"]

#: Linear in what a provider sends: what follows a beginning is taken, whether or not the end is there as well. A JWT or
#: a quotation that somebody has cut is a secret too.
_SECRETS = re.compile(
    r"eyJ[\w-]{8,}+(?:\.[\w-]*+)*+"  # a JWT, or other JSON in base64
    r"""|(?P<name>["']?\b(?:access_token|refresh_token|id_token|client_secret|client_assertion|assertion|password|code"""
    r"""|code_verifier|device_code|user_code|client_info|Secret|secret)\b["']?\s*+[:=]\s*+)"""
    r"""(?P<value>b?"(?:[^"\\]++|\\[\s\S])*+"?|b?'(?:[^'\\]++|\\[\s\S])*+'?|[^\s,;&}"']++)"""
)

#: MSAL's loggers that see requests, responses or cache entries. A filter works on the logger that it is added to alone.
_LOGGERS = (
    "msal.application",
    "msal.authority",
    "msal.broker",
    "msal.cloudshell",
    "msal.managed_identity",
    "msal.mex",
    "msal.oauth2cli.assertion",
    "msal.oauth2cli.authcode",
    "msal.oauth2cli.oauth2",
    "msal.oauth2cli.oidc",
    "msal.region",
    "msal.telemetry",
    "msal.token_cache",
    "msal.wstrust_request",
    "msal.wstrust_response",
)


def redact(text: str) -> str:
    """Replace what looks like a secret."""
    return _SECRETS.sub(lambda found: f"{found['name'] or ''}[redacted]", text)


class _Redaction(logging.Filter):
    def filter(self, record: logging.LogRecord) -> bool:
        """Let every record pass, without its secrets and in one line."""
        try:
            told = record.getMessage()
        except (TypeError, ValueError):
            return True  # logging itself reports a record that can't be formatted
        kept = printable(redact(told))
        if kept != told:
            record.msg, record.args = kept, ()
        return True


_redaction = _Redaction()


def install() -> None:
    """Put the filter on MSAL's loggers; more than once does no harm."""
    for name in _LOGGERS:
        logging.getLogger(name).addFilter(_redaction)
