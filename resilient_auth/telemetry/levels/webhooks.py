"""Tell somebody else's service, signed as Standard Webhooks has it; what hangs or leads elsewhere is a failure.

The specification is at https://www.standardwebhooks.com: a body is signed with its id and its time, HMAC-SHA256, so
that whoever gets it can tell that it is ours, new, and not one that came before.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import logging
import os
import ssl
import threading
from collections.abc import Sequence
from typing import Final, NamedTuple

from ..._policy.checks import require, require_number
from ..._policy.failure import retry_after_of
from ..._wire.connection import HttpxWire
from ..._wire.failures import as_failure
from ...clock import SystemClock
from ...downstream.given import Verify
from ...downstream.origins import named_origin
from ...errors import ConfigurationError

__all__ = ["Sender", "Sent", "Webhook", "signature"]

_PREFIX: Final = "whsec_"
#: Bytes of a secret, as the specification wants them.
_SHORTEST, _LONGEST = 24, 64
#: Bytes of an answer, of which the status alone is looked at.
_LARGEST_ANSWER = 65_536


class Webhook:
    """Where an owner is told of alerts, and by what secret (G25). It shows neither the secret nor the whole URL.

    Args:
        url: An https URL; http will do on this machine. Its path and query may be secret, and are shown to nobody.
        secret: What signs: `whsec_` and 24 to 64 bytes in base64, as the receiver has it. Several while it is replaced.
        deadline: Seconds for one attempt and its whole answer.
        verify: Whom to trust, as in MSAL: False, or the path of a CA bundle; or an SSL context.

    Raises:
        ConfigurationError: An argument is wrong.
    """

    __slots__ = ("_secrets", "_url", "_verify", "deadline", "origin")

    def __init__(self, url: str, *, secret: str | Sequence[str], deadline: float = 10.0, verify: Verify = True) -> None:
        require(isinstance(url, str), f"url must be a string, not {type(url).__name__}")
        require_number("deadline", deadline, low=0.1, high=60.0)
        given = (secret,) if isinstance(secret, str) else tuple(secret) if isinstance(secret, Sequence) else ()
        fits = verify is None or isinstance(verify, (bool, str, os.PathLike, ssl.SSLContext))
        require(fits, f"verify must be True, False, the path of a CA bundle, or an SSL context, not {verify!r}")
        require(bool(given), "secret must be one that begins with whsec_, or several of them")
        #: The URL's, which is what is shown of it.
        self.origin = named_origin("url", url, allow_http_loopback=True, bare=False)
        self.deadline = float(deadline)
        self._url, self._secrets, self._verify = url, tuple(map(_secret, given)), verify

    def __repr__(self) -> str:
        return f"Webhook({self.origin!r})"

    def __reduce__(self) -> tuple[object, ...]:
        raise TypeError("a Webhook can't be pickled, since it holds secrets: make one in each process")


#: Set on a thread that sends.
_here = threading.local()


def _may_be_shown(_: logging.LogRecord) -> bool:
    return not getattr(_here, "sends", False)


# httpx logs the URL of each request, of which this one's may be a secret.
logging.getLogger("httpx").addFilter(_may_be_shown)


def _secret(text: object) -> bytes:
    """Return the bytes of a secret, which no message repeats."""
    hint = f"secret must begin with {_PREFIX} and go on with {_SHORTEST} to {_LONGEST} bytes in base64"
    if not isinstance(text, str) or not text.startswith(_PREFIX):
        raise ConfigurationError(hint)
    try:
        secret = base64.b64decode(text.removeprefix(_PREFIX), validate=True)
    except (binascii.Error, ValueError):
        raise ConfigurationError(hint) from None
    require(_SHORTEST <= len(secret) <= _LONGEST, f"{hint}; it has {len(secret)}")
    return secret


def signature(secret: bytes, message_id: str, timestamp: int, body: str) -> str:
    """Return what the header `webhook-signature` says for one secret."""
    signed = hmac.digest(secret, f"{message_id}.{timestamp}.{body}".encode(), "sha256")
    return f"v1,{base64.b64encode(signed).decode()}"


class Sent(NamedTuple):
    """What came of an attempt."""

    #: "" where it was taken in.
    code: str
    detail: str = ""
    #: Seconds that the receiver asked for.
    retry_after: float | None = None
    #: Whether the receiver wants no more.
    gone: bool = False


class Sender:
    """Make attempts at one webhook. Each is over by its deadline; nothing is raised, and no redirect is followed."""

    def __init__(self, webhook: Webhook) -> None:
        self._webhook = webhook
        # An attempt lasts by the machine's own clock, whichever a test has the rest go by.
        self._clock = SystemClock()
        deadline = webhook.deadline
        self._wire = HttpxWire(self._clock, min(5.0, deadline), verify=webhook._verify, timeout=deadline)

    def send(self, message_id: str, timestamp: int, body: str) -> Sent:
        """Send a body of JSON."""
        webhook = self._webhook
        headers = {
            "Content-Type": "application/json",
            "User-Agent": "resilient-auth",
            "webhook-id": message_id,
            "webhook-timestamp": str(timestamp),
            "webhook-signature": " ".join(
                signature(secret, message_id, timestamp, body) for secret in webhook._secrets
            ),
        }
        _here.sends = True
        try:
            ends = self._clock.monotonic() + webhook.deadline
            answer = self._wire.send(
                "POST", webhook._url, ends=ends, data=body.encode(), headers=headers, largest=_LARGEST_ANSWER
            )
        except ConfigurationError as error:  # a proxy's, which quotes no URL
            return Sent("configuration", str(error))
        except Exception as error:  # noqa: BLE001 - whatever it is, it is tried again
            failure = as_failure(error, webhook.origin)
            return Sent(failure.code, str(failure))
        finally:
            _here.sends = False
        status = answer.status_code
        if 200 <= status < 300:
            return Sent("")
        led = " (redirects aren't followed: give the URL where it leads)" if 300 <= status < 400 else ""
        return Sent(
            f"http_{status}",
            f"it answered {status}{led}",
            retry_after_of(answer.headers, self._clock.wall()),
            gone=status == 410,
        )

    def close(self) -> None:
        """Close connections."""
        self._wire.close()
