"""Whether what an API answers a provider is what the provider takes for an answer."""

from __future__ import annotations

from collections.abc import Mapping

from .._policy.checks import require, require_whole

__all__ = ["check_callout"]


def check_callout(
    event: str, status: int, headers: Mapping[str, str], body: bytes | str, *, nonce: str | None = None
) -> str:
    """Check an answer as the emulator does, which knows nothing of the rest of this package.

    Args:
        event: What was asked: `tokenIssuanceStart`, `attributeCollectionStart`, `attributeCollectionSubmit`,
            `emailOtpSend`, `passwordSubmit`, `apiConnector` or `restProfile`.
        status: The answer's status.
        headers: Its headers.
        body: Its body.
        nonce: For `passwordSubmit`: the one that was sent.

    Returns:
        The action, by the contract's name, such as `provideClaimsForToken`.

    Raises:
        AssertionError: It isn't the contract's; the message says why, and what Entra's sign-in log would say.
        ConfigurationError: An argument is wrong, or there is no such event.
    """
    from ..emulator.callouts.contracts import CONTRACTS, Unfit, judge

    known = isinstance(event, str) and event in CONTRACTS
    require(known, f"event must be one of {', '.join(CONTRACTS)}, not {event!r}")
    require_whole("status", status, low=100, high=599)
    items = callable(getattr(headers, "items", None))
    require(items, f"headers must be a mapping, such as the answer's own, not {type(headers).__name__}")
    require(isinstance(body, (bytes, str)), f"body must be bytes or a text, not {type(body).__name__}")
    require(nonce is None or isinstance(nonce, str), f"nonce must be a text, not {type(nonce).__name__}")
    kind = next((value for name, value in headers.items() if name.lower() == "content-type"), "")
    sent = body.encode(errors="surrogatepass") if isinstance(body, str) else body
    try:
        return judge(event, status, kind, sent, nonce=nonce).action
    except Unfit as error:
        raise AssertionError(f"this is no answer to {event}: {error}") from None
