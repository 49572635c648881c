"""The events, each with its fields, its level and the words in which it is told.

This is more than 400 lines because they are one list.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass

from .event import BreakerEvent, DependencyEvent, DocumentEvent, Event, IssuerEvent, RequestEvent, origin_in

__all__ = [
    "AlertOpened",
    "AlertResolved",
    "ApiRefusedToken",
    "BlameChanged",
    "BreakerClosed",
    "BreakerHalfOpen",
    "BreakerIsolated",
    "BreakerOpened",
    "BulkheadRefused",
    "CalloutAnswered",
    "CalloutDefaulted",
    "CalloutRejected",
    "ClaimsServiceRefused",
    "ClockJumped",
    "ClocksDiffer",
    "CooldownStarted",
    "CredentialExpiring",
    "CredentialRejected",
    "CredentialRotated",
    "DecisionSubstituted",
    "DenyListRejected",
    "DiscoveryRejected",
    "DiscoveryServedStale",
    "ExchangeDenied",
    "ExchangeFailed",
    "ExchangesOverdue",
    "ExpiredTokenAccepted",
    "FallbackServed",
    "GraceServed",
    "HedgeSent",
    "KeysAnomaly",
    "KeysRefreshFailed",
    "KeysRefreshed",
    "PinnedKeysInUse",
    "ProviderSeenDown",
    "ProviderSeenUp",
    "RefreshScheduled",
    "RemovalPostponed",
    "RemovalWritten",
    "RetryScheduled",
    "SecretEndsUnread",
    "SecurityEventReceived",
    "SessionExtended",
    "SessionsEnded",
    "SignInRefused",
    "SignInUnavailable",
    "SignOutRefused",
    "SourceSwitched",
    "StoreFailed",
    "StoreRecovered",
    "StoreRejected",
    "TokenAcquired",
    "TokenDropped",
    "TokenOnDenyList",
    "TokenServed",
    "UserSignedIn",
    "WebhookFailed",
    "WriteFailed",
    "WriteGivenUp",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenAcquired(RequestEvent):
    """A provider gave a token, or a store had one."""

    level = logging.INFO
    text = "Token acquired from {source} in {seconds} s, valid for {expires_in} s: {request}"
    expires_in: float
    #: Seconds that the exchange took.
    seconds: float
    #: `store` where another process, or this one in an earlier life, had obtained it.
    source: str = "identity_provider"


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenServed(RequestEvent):
    """A valid token was served because no fresh one could be had; told once per failed refresh and token."""

    text = "No fresh token ({code}); the cached one is served and is valid for {remaining} s more: {request}"
    remaining: float
    code: str


@dataclass(frozen=True, slots=True, kw_only=True)
class GraceServed(RequestEvent):
    """An expired token was served, since the owner opted in; told each time."""

    text = "An expired token was served, {past_expiry} s past its expiry and {outage} s into the outage: {request}"
    past_expiry: float
    outage: float


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenDropped(RequestEvent):
    """A token was forgotten: removed, challenged, evicted or replaced by the application."""

    level = logging.DEBUG
    text = "Token dropped ({code}): {request}"
    code: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ExchangeFailed(RequestEvent):
    """No answer could be had from a provider for this request."""

    text = "Token request failed with {code} ({detail}): {request}"
    code: str
    detail: str
    retry_after: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ExchangeDenied(RequestEvent):
    """The provider works and said no."""

    text = "Token request denied with {code}: {request}"
    code: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RefreshScheduled(RequestEvent):
    """A refresh ahead of need, or a probe of a provider that failed, is to run after `seconds`."""

    level = logging.DEBUG
    text = "Background refresh in {seconds} s ({code}): {request}"
    seconds: float
    code: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryScheduled(DependencyEvent):
    """An attempt failed and another one follows after `seconds`: the first word of an outage."""

    text = "attempt {attempt} failed with {code}; next attempt in {seconds} s"
    attempt: int
    seconds: float
    code: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ExchangesOverdue(Event):
    """Exchanges haven't come back in their time, and others go on in their places; what they call hangs."""

    text = "{count} calls in the lane {lane} are overdue; others go on in their places"
    #: The authority that they ask; and for whom, where that is told apart.
    lane: str
    #: How many of that lane haven't come back so far.
    count: int

    @property
    def authority(self) -> str:
        """Return the origin of the identity provider that the lane is for; "" where it is for none."""
        return origin_in(self.lane)


@dataclass(frozen=True, slots=True, kw_only=True)
class CooldownStarted(DependencyEvent):
    """The provider throttled this application (429, or `Retry-After`) for `seconds`."""

    text = "throttled this application; next request in {seconds} s"
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class BreakerOpened(BreakerEvent):
    """A dependency failed too often; it isn't asked for `seconds`."""

    text = "circuit open after {code}; next probe in {seconds} s"
    seconds: float
    code: str


@dataclass(frozen=True, slots=True, kw_only=True)
class BreakerHalfOpen(BreakerEvent):
    """A break is over, and a probe may go out."""

    level = logging.DEBUG
    text = "circuit half-open; a probe goes out"


@dataclass(frozen=True, slots=True, kw_only=True)
class BreakerClosed(BreakerEvent):
    """A dependency works again, after `seconds` in which it didn't."""

    text = "circuit closed after {seconds} s"
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class BreakerIsolated(BreakerEvent):
    """An operator took a dependency out of use, or put it back."""

    text = "isolated by hand until it is reset"
    isolated: bool

    def _words(self) -> str:
        return self.text if self.isolated else "isolation by hand ended"


@dataclass(frozen=True, slots=True, kw_only=True)
class BlameChanged(Event):
    """Somebody else is to blame for what fails at an identity provider, as far as can be told; told at once."""

    text = "To blame for what fails at {authority}: {what}, before that {previous}"
    authority: str
    #: Over which wire, where that isn't the default one.
    wire: str
    #: Which application, where it is its affair alone.
    client_id: str
    #: As in `health().blame`; `nobody` where it works again.
    what: str
    previous: str
    #: What says so, in plain words.
    evidence: tuple[str, ...]

    def _words(self) -> str:
        return f"{self.text} ({{evidence}})" if self.evidence else self.text


@dataclass(frozen=True, slots=True, kw_only=True)
class DiscoveryServedStale(DocumentEvent):
    """The last known good document was served, since no newer one could be had."""

    text = "No newer discovery document ({code}); the one from {age} s ago is used: {target}"
    age: float
    code: str


@dataclass(frozen=True, slots=True, kw_only=True)
class DiscoveryRejected(DocumentEvent):
    """A discovery document was not of the right shape and was thrown away."""

    text = "Discovery document of {target} rejected: {detail}"
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceSwitched(Event):
    """A credential gives tokens for these scopes from another one of its sources (G12)."""

    text = "Credential switched from {previous} to {source} ({code}) for {scopes}"
    scopes: tuple[str, ...]
    source: str
    #: The one that gave them before.
    previous: str
    #: The code of the failure that made it switch, or `recovered` when it went back.
    code: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CredentialRotated(Event):
    """An application authenticates with a new credential from now on; the provider has taken it (G24)."""

    level = logging.INFO
    text = "Application {client_id} authenticates with the new credential from {target} at {authority}"
    authority: str
    client_id: str
    #: Where it came from: a file, or the owner's function.
    target: str
    #: When its certificate ends, as an ISO 8601 date in UTC; "" where there is none.
    expires: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CredentialRejected(Event):
    """An application's new credential can't be used, or the provider doesn't take it; the old one goes on."""

    text = (
        "The new credential of application {client_id} from {target} isn't used ({code}: {detail}); "
        "the old one goes on at {authority}"
    )
    authority: str
    client_id: str
    target: str
    code: str
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CredentialExpiring(Event):
    """An application's credential ends soon, or has ended; told 60, 30, 7 and 1 days ahead, and then (G24)."""

    text = "The {credential} of application {client_id} from {target} expires at {expires} ({remaining} s left)"
    authority: str
    client_id: str
    target: str
    expires: str
    #: Seconds until then; less than 0 when it has ended.
    remaining: float
    #: `certificate`, or `secret` where a watch knows its end.
    credential: str = "certificate"


@dataclass(frozen=True, slots=True, kw_only=True)
class SecretEndsUnread(Event):
    """The function that tells when secrets end failed; it is asked again an hour later, and what it told last holds."""

    text = "When secrets end couldn't be read from {target}: {code} ({detail})"
    #: The option that holds the function.
    target: str
    code: str
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class AlertOpened(Event):
    """Requests have fallen abruptly, or fewer of them succeed (G25); told once by a fleet that shares a store."""

    level = logging.ERROR
    text = "{kind} of {target}: {code}: {detail}"
    #: What is watched: the name that it was given.
    target: str
    #: `acquisitions`, `verifications` or `downstream`.
    kind: str
    code: str
    detail: str
    #: How many there were in the span that is looked at, and how many of them failed.
    count: int
    failed: int


@dataclass(frozen=True, slots=True, kw_only=True)
class AlertResolved(Event):
    """What an alert told of is over, after `seconds`."""

    text = "{kind} of {target}: {code} is over after {seconds} s: {detail}"
    target: str
    kind: str
    code: str
    detail: str
    count: int
    failed: int
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class WebhookFailed(Event):
    """A webhook didn't take a message; told at the first failure of each message, and when it is given up."""

    text = "Webhook {target} didn't take a message: {code} ({detail}); next attempt in {retry_after} s"
    #: Its origin.
    target: str
    code: str
    detail: str
    #: None where the message is given up.
    retry_after: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ClockJumped(Event):
    """The wall clock was set, or this process stood still; for a while, a fall of requests isn't judged."""

    text = "The {target} clock jumped by {seconds} s; for the next {rest} s a fall of requests isn't judged"
    target: str
    #: Less than 0 where it was set back.
    seconds: float
    rest: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ClocksDiffer(Event):
    """Processes of a fleet that is watched have clocks that differ; for a while, a fall of requests isn't judged."""

    level = logging.WARNING
    text = "The clocks of other processes of {target} are {seconds} s ahead of this one's: {detail}"
    target: str
    #: Less than 0 where they are behind.
    seconds: float
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiRefusedToken(Event):
    """An API answered 401 to a token, with a claims challenge or without."""

    level = logging.INFO
    text = "{target} answered 401 to a token (claims challenge: {claims})"
    target: str
    claims: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class BulkheadRefused(Event):
    """A call to an API was refused, since too many are under way."""

    text = "Call to {target} refused: too many are under way ({code})"
    target: str
    code: str


@dataclass(frozen=True, slots=True, kw_only=True)
class FallbackServed(Event):
    """A fallback's answer was served in place of an API's; `code` says what had failed."""

    text = "Fallback served in place of {target}'s answer ({code})"
    target: str
    code: str


@dataclass(frozen=True, slots=True, kw_only=True)
class HedgeSent(Event):
    """A request that had no answer yet was sent to an API a second time."""

    level = logging.DEBUG
    text = "No answer yet; request sent to {target} a second time"
    target: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreFailed(Event):
    """A store's medium, or the owner's token cache, began to fail; told once until it recovers.

    Tokens come from memory meanwhile.
    """

    text = "Store {target} is failing with {code} ({detail}); tokens come from memory"
    target: str
    code: str
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreRecovered(Event):
    """A store's medium works again, after `seconds` in which it didn't."""

    text = "Store {target} works again after {seconds} s"
    target: str
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreRejected(Event):
    """What a store held could not be verified and counts as absent; told once a minute at most, per kind and code."""

    text = "{count} records of kind {kind} in store {target} couldn't be verified ({code}) and count as absent"
    target: str
    #: The kind of record; `file` where a whole file was set aside.
    kind: str
    #: `edited`, `foreign`, `malformed`, `unknown_key` or `newer_schema`.
    code: str
    #: How many, since it was last told.
    count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RemovalPostponed(Event):
    """A sign-out couldn't be written to the store, and other processes haven't heard of it; it is tried again."""

    text = "Sign-out couldn't be written to store {target} and will be retried (subject: {subject})"
    target: str
    #: A hash of whose; None for the application's own tokens.
    subject: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class RemovalWritten(Event):
    """A sign-out that was postponed is in the store now."""

    text = "Postponed sign-out was written to store {target} (subject: {subject})"
    target: str
    subject: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class KeysRefreshed(IssuerEvent):
    """An issuer's key set was fetched."""

    level = logging.INFO
    text = "Fetched {count} signing keys of {issuer} (added: {added}; missing: {missing}; refused: {refused})"
    count: int
    added: tuple[str, ...]
    #: Known keys that it doesn't list; they live on for a while.
    missing: tuple[str, ...]
    #: Why keys in it aren't used.
    refused: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class KeysRefreshFailed(IssuerEvent):
    """An issuer's keys couldn't be fetched; those that are held go on being used."""

    text = "Signing keys of {issuer} couldn't be fetched: {code} ({detail}); {count} held, next try in {retry_after} s"
    code: str
    detail: str
    #: How many keys can still be used, and the seconds since they were fetched; None where they never were.
    count: int
    age: float | None
    retry_after: float


@dataclass(frozen=True, slots=True, kw_only=True)
class KeysAnomaly(IssuerEvent):
    """A fetched key set is odd, and doesn't replace what is held."""

    text = "The key set fetched for {issuer} is odd ({code}) and isn't used: {kids}"
    #: `empty`; `changed`: another key under a known `kid`; `shrank`: fewer keys than before.
    code: str
    kids: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class PinnedKeysInUse(IssuerEvent):
    """Tokens are verified with the owner's pinned keys, since none could be fetched; told once."""

    text = "Signing keys of {issuer} couldn't be fetched; {count} pinned keys are in use"
    count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ProviderSeenDown(IssuerEvent):
    """Scheduled probes of a provider's discovery document and token endpoint failed, twice in a row."""

    text = "Provider of {issuer} is down: two probes in a row failed, the last one with {code}"
    #: How the last probe failed.
    code: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ProviderSeenUp(IssuerEvent):
    """A probe of the provider had an answer again, after `seconds` in which none had."""

    text = "Provider of {issuer} answers again after {seconds} s"
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ExpiredTokenAccepted(IssuerEvent):
    """A token past its expiry was accepted, since the owner opted in and the provider is down; told each time."""

    text = (
        "A token {past_expiry} s past its expiry was accepted, {outage} s into the outage of {issuer} "
        "(subject: {subject}, client: {client_id})"
    )
    #: A hash of the token's subject.
    subject: str
    client_id: str | None
    past_expiry: float
    outage: float


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenOnDenyList(IssuerEvent):
    """A token was refused because of the deny-list."""

    text = "Token of {issuer} refused: on the deny-list ({code})"
    #: What of it is listed: `kid`, `oid`, `sid` or `token_id`; `revoked` where it was issued before its
    #: user or session was; `check` where the owner's function said so.
    code: str


@dataclass(frozen=True, slots=True, kw_only=True)
class DenyListRejected(Event):
    """A deny-list's file couldn't be read; what was read last holds."""

    text = "Deny-list {target} couldn't be read: {code} ({detail}); the last one read holds"
    target: str
    code: str
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class DecisionSubstituted(Event):
    """A claims service couldn't be asked, and something else decided; told each time."""

    text = "Claims service {target} couldn't be asked ({code}); {provenance} decided in its place, allowed: {allowed}"
    #: The service's origin.
    target: str
    provenance: str
    allowed: bool
    #: Why it couldn't be asked.
    code: str
    #: Seconds since the service said what was served; 0 where it didn't.
    age: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ClaimsServiceRefused(Event):
    """A claims service is up and doesn't take our questions: an address, a credential or a body is wrong."""

    level = logging.ERROR
    text = "Claims service {target} refused the question with status {status}: {detail}"
    target: str
    #: The HTTP status; 0 where no token could be had to ask with.
    status: int
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CalloutAnswered(Event):
    """A provider called in the middle of a sign-in and got the handler's answer."""

    level = logging.DEBUG
    text = "Callout {target} answered with status {status} in {seconds} s"
    #: The callout's name.
    target: str
    status: int
    #: Whether it was the answer to an earlier request like it.
    repeated: bool
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class CalloutDefaulted(Event):
    """A provider called in the middle of a sign-in and got the owner's default in place of the handler's answer."""

    text = "Callout {target} gave no answer of its own in {seconds} s ({code}: {detail}); answered by {source}"
    target: str
    #: `default`; or `last_known`, the claims that the handler gave before.
    source: str
    code: str
    detail: str
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class CalloutRejected(Event):
    """A request to a callout came from nobody who may call, or isn't what its contract says."""

    text = "Request to callout {target} rejected: {code} ({detail})"
    target: str
    code: str
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class WriteFailed(Event):
    """A write in the background failed, and is tried again after `seconds`."""

    text = "Write {key} of {target} failed with {code} ({detail}); tried again in {seconds} s"
    #: The writes' name.
    target: str
    #: A hash of the write's key.
    key: str
    code: str
    detail: str
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class WriteGivenUp(Event):
    """A write in the background became a dead letter, which somebody must look at."""

    level = logging.ERROR
    text = "Write {key} of {target} was given up ({code}); {count} dead letters wait for somebody to look at them"
    target: str
    #: A hash of the write's key.
    key: str
    code: str
    count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class UserSignedIn(Event):
    """A user signed in to a web application, and a session was begun."""

    level = logging.INFO
    text = "A user signed in with {provider} ({authority}): {subject}"
    authority: str
    #: The owner's name of the provider; `guest` and `one-time-code` for who came in without one.
    provider: str
    #: A hash of whom.
    subject: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionExtended(Event):
    """A user's session is past its end, and goes on since the provider is down; told once a session."""

    text = "A session goes on for up to {seconds} s past its end, since {authority} is down: {subject}"
    authority: str
    #: A hash of whose it is.
    subject: str
    #: For how long, at most, from now on.
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class SignInRefused(Event):
    """An answer to a sign-in was refused, or the provider said no; `authority` is empty where that isn't known."""

    text = "A sign-in was refused with {code} {detail}: {authority}"
    authority: str
    code: str
    detail: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class SignInUnavailable(Event):
    """A visitor wasn't led to a provider that can't be reached, and was told so."""

    text = "A visitor can't sign in, and was told to come back in {retry_after} s: {authority}"
    authority: str
    retry_after: float


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionsEnded(IssuerEvent):
    """A user was signed out: by themselves, or since the provider said so."""

    level = logging.INFO
    text = "{count} sessions of {issuer} were ended ({code}): {subject}"
    #: `sign_out`, `front_channel`, `back_channel` or `security_event`.
    code: str
    count: int
    #: A hash of whose, or of which.
    subject: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SignOutRefused(IssuerEvent):
    """Somebody wanted users signed out, or told of a security event, and isn't believed; nothing was ended."""

    text = "A sign-out or a security event was refused with {code}: {issuer}"
    #: A code of `InvalidToken`; `replayed`, `cross_site`, `unauthorized`, `malformed`.
    code: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SecurityEventReceived(IssuerEvent):
    """A provider told of a security event (Shared Signals), and it was acted upon."""

    level = logging.INFO
    text = "{issuer} told of {kind}: {action} ({count} sessions ended)"
    #: The last part of its URI, such as `session-revoked`.
    kind: str
    #: `end`: sessions and tokens; `tokens`: these alone; `nothing`; `verified`: of the stream itself.
    action: str
    count: int
