"""Why something was decided: every code that events and health tell, but those of errors, and what it means.

The codes of errors are on their classes (`errors.py`, and each room's). A provider that denies says its own `error`,
such as `invalid_grant`. `http_503` and the like are statuses.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

__all__ = ["CODES"]

CODES: Mapping[str, str] = MappingProxyType(
    {
        # Why a token was dropped.
        "cache_loaded": "the application loaded its token cache anew",
        "cache_replaced": "the application replaced its token cache",
        "claims_challenge": "an API challenged it for more claims",
        "closed": "the application, or the store, was closed",
        "refused_by_api": "an API refused it",
        "removed": "the application removed it, or its account",
        "removed_elsewhere": "another process removed it, or its account",
        "revoked": "the provider says that the account, or its tokens, are gone",
        # What becomes of a token.
        "exchange_error": "the application's own code failed, such as the function that makes its assertions",
        "keep_fresh": "the token is kept fresh ahead of need",
        "recovered": "the source that failed works again",
        # Calls to APIs.
        "queue_full": "as many calls wait for their turn as may",
        "queue_timeout": "the call's turn didn't come in time",
        "slow": "the answer came later than a call may take",
        # Calls of a provider's in the middle of a sign-in.
        "failed_before": "the handler failed on the same request before, and isn't called twice for one",
        "handler_error": "a function of the owner's raised an exception",
        # What is wrong with a store, a file or a token cache.
        "busy": "others hold it, or it has no connection free",
        "cluster": "it is a node of a cluster, and is to be asked as one",
        "cluster_down": "a part of its cluster has no node",
        "corrupt": "it is damaged",
        "denied": "this process may not read or write it, or isn't let in",
        "failed": "it failed in a way that has no code of its own",
        "full": "no space is left",
        "insecure": "others may read or change it",
        "io_error": "the system can't read or write it",
        "loading": "it has just started, or has lost its primary",
        "no_script": "something in front of it sends one client to different servers",
        "read_only": "it can't be written to",
        "timeout": "it didn't answer in time",
        "wrong_key": "it was sealed with another key",
        # What is wrong with what a store, or a file, holds.
        "edited": "its seal is broken",
        "foreign": "it belongs to another owner, purpose or place",
        "malformed": "it isn't of the right form",
        "newer_schema": "a newer release wrote it",
        "older_schema": "an older release wrote it, in a form that isn't read any more",
        "unknown_key": "it was sealed with a key that isn't here",
        "unreadable": "the file can't be read",
        # What is wrong with an application's credential.
        "locked": "its private key is encrypted, and the passphrase is missing or another one",
        "mismatched": "the private key and the certificate don't belong together",
        # What is odd about a key set.
        "changed": "another key under a known `kid`",
        "empty": "no usable key",
        "shrank": "fewer keys than before",
        # What an alert is about.
        "error_budget": "for long, more requests failed than the objective allows",
        "requests_fell": "there are far fewer requests than a day and a week before",
        "success_rate": "far more requests fail than the objective allows",
        # Why users were signed out, and why somebody who wanted that wasn't believed.
        "back_channel": "the provider sent a logout token",
        "front_channel": "the provider's sign-out page said so",
        "security_event": "the provider told of a security event",
        "sign_out": "the user did it",
        "cross_site": "another site had the request sent",
        "replayed": "it was used before",
        "unauthorized": "the sender isn't who may send",
        # What of a token is on the deny-list.
        "check": "the owner's function says so",
        "kid": "the key that signed it",
        "oid": "its user or application",
        "sid": "its session",
        "token_id": "the token itself",
    }
)
