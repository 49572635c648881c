"""What the provider says: its discovery document, its keys, its time, and a token."""

from __future__ import annotations

import email.utils
import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any, Final

from ... import msal
from ..._policy.blame.verdict import ADVICE, Known, judge
from ..._policy.failure import Purpose
from ..._wire.answers import WireResponse
from ..._wire.discovery import fault_in, hosts_for
from ..._wire.failures import as_failure
from ..._wire.trail import Trail, shown_by_failure
from ...errors import ConfigurationError, ProviderUnavailable
from ...health import health
from ...settings import RetryOptions, Settings
from ...verify.keys.documents import UnusableDocument, keys_in
from .credential import as_msal_takes_it
from .finding import Finding, error, ok, warning
from .patient import Patient
from .rules import is_of_application

__all__ = ["check_clock", "check_discovery", "check_keys", "check_token", "patience"]

_WAIT: Final = "nothing to do on your side: wait; tokens that are held are served meanwhile"
#: Seconds: beyond the first, assertions may be refused soon; beyond the second, they and fresh tokens are.
_ODD, _WRONG = 30.0, 300.0
_MOST_KEYS: Final = 1000
_ALGORITHMS: Final = frozenset({"RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512"})

_CONSENT = "give the application the permission for this scope, and an administrator's consent"
#: By the number in Entra's message: what is wrong, what mends it, and the rule.
_DENIALS: Final[Mapping[str, tuple[str, str]]] = {
    "AADSTS7000215": ("secret_wrong", "give the secret's value, not its id; make another one if it is lost"),
    "AADSTS7000222": ("secret_expired", "make a new secret, better a certificate or a managed identity"),
    "AADSTS700016": ("application_unknown", "correct client_id, or the tenant in the authority"),
    "AADSTS700027": ("certificate_unknown", "add the certificate to the application's registration"),
    "AADSTS700024": ("assertion_dates", "set this machine's clock"),
    "AADSTS70021": (
        "federated_unknown",
        "give the application a federated credential with the issuer, subject and audience of the assertion, letter by "
        "letter; one that was made a moment ago takes minutes",
    ),
    "AADSTS90002": ("tenant_unknown", "correct the tenant in the authority"),
    "AADSTS500011": ("resource_unknown", "correct the resource in the scope; it must be known in this tenant"),
    "AADSTS1002012": ("scope_wrong", "an application's own tokens are asked for with <resource>/.default"),
    "AADSTS70011": ("scope_wrong", "correct the scope"),
    "AADSTS65001": ("consent_missing", _CONSENT),
    "AADSTS53003": ("policy", "a Conditional Access policy says no: ask who administers the tenant"),
    "invalid_client": ("credential_refused", "look at client_id and at the secret or certificate: is it this one's?"),
    "unauthorized_client": ("application_refused", "allow the application this flow, in this tenant"),
    "invalid_scope": ("scope_wrong", "correct the scope"),
}


def patience(seconds: float) -> Settings:
    """Return settings under which all is over within so many seconds, without a second attempt."""
    return Settings(
        wait=seconds,
        exchange_deadline=seconds,
        attempt_timeout=seconds,
        connect_timeout=seconds,
        discovery_wait=seconds,
        freshness=replace(Settings().freshness, margin_wait=min(seconds, Settings().freshness.margin_wait)),
        retry=RetryOptions(attempts=1),
    )


def check_discovery(patient: Patient) -> Iterator[Finding]:
    """Fetch the discovery document and look whether the engine would take it."""
    url = patient.setup.document_url
    answer = _ask(patient, url)
    if isinstance(answer, Finding):
        yield answer
        return
    patient.answer, patient.answered_at = answer, patient.clock.wall()
    said = _fault_of(answer)
    if said is not None:
        yield said
        return
    fault = fault_in(Purpose.DISCOVERY, answer.text, hosts_for(Purpose.DISCOVERY, url, {}, patient.owners_hosts))
    if fault is not None:
        yield error("document_wrong", f"the discovery document can't be used: {fault}", "correct the authority")
        return
    patient.document = json.loads(answer.text)
    yield ok(f"the discovery document is there, of the issuer {json.loads(answer.text).get('issuer')}")


def check_clock(patient: Patient) -> Iterator[Finding]:
    """Compare this machine's clock with the provider's."""
    date = None if patient.answer is None else patient.answer.headers.get("date")
    try:
        theirs = email.utils.parsedate_to_datetime(date or "").timestamp()
    except (TypeError, ValueError):
        return
    # The header has whole seconds; what a cache gives has the date of when it was fetched (RFC 9111, section 5.1).
    age = patient.answer.headers.get("age", "") if patient.answer is not None else ""
    ahead = patient.answered_at - theirs - (float(age) if age.isascii() and age.isdecimal() else 0.0) - 0.5
    if abs(ahead) < _ODD:
        yield ok("this machine's clock is the provider's")
        return
    found = error if abs(ahead) >= _WRONG else warning
    side = "ahead of" if ahead > 0 else "behind"
    yield found(
        "clock_wrong",
        f"this machine's clock is {abs(ahead):.0f} s {side} the provider's: assertions and tokens seem to be over, or "
        "not valid yet",
        "set it, and keep it set: timedatectl set-ntp true, or the host's clock for a container",
    )


def check_keys(patient: Patient) -> Iterator[Finding]:
    """Fetch the signing keys and count those that tokens can be verified with."""
    url = (patient.document or {}).get("jwks_uri")
    hosts = hosts_for(Purpose.KEYS, patient.setup.document_url, {}, patient.owners_hosts)
    if not isinstance(url, str) or not url.startswith("https://") or not hosts.allow(url):
        yield error(
            "keys_elsewhere",
            "the discovery document names no jwks_uri on the provider's own host",
            "correct the authority; a verifier wouldn't ask there",
            rule="G15",
        )
        return
    answer = _ask(patient, url)
    said = answer if isinstance(answer, Finding) else _fault_of(answer)
    if said is not None:
        yield replace(said, what=f"the signing keys: {said.what}", rule=said.rule or "G15")
        return
    try:
        found = keys_in(answer.text, _ALGORITHMS, _MOST_KEYS)  # type: ignore[union-attr]
        why = (found.refused or ("there is none",))[0]
    except UnusableDocument as refusal:
        found, why = None, str(refusal)
    if found is None or not found.usable:
        yield error("keys_unusable", f"no token can be verified with the signing keys: {why}", _WAIT, rule="G15")
        return
    yield ok(f"signing keys that can be used: {len(found.usable)}", rule="G15")


def check_token(patient: Patient) -> Iterator[Finding]:
    """Ask for a token, as the application would."""
    setup = patient.setup
    scopes = next((each for each in setup.scopes if is_of_application(each)), None)
    if "client_credentials" not in setup.flows or not setup.client_id or scopes is None:
        return
    credential = as_msal_takes_it(patient)
    if credential is None:
        return
    app = msal.ConfidentialClientApplication(
        setup.client_id,
        authority=setup.authority,
        client_credential=credential,
        client_capabilities=list(setup.client_capabilities) or None,
        verify=setup.verify,
        instance_discovery=False,  # the document was looked at
        resilience=patience(setup.timeout),
    )
    try:
        result = app.acquire_token_for_client(list(scopes))
    except ProviderUnavailable as failure:
        blamed = [each for each in health().blame if each.authority == failure.authority]
        fix = _WAIT if not blamed or blamed[0].what == "provider" else blamed[0].advice
        yield error("provider_fails", f"no token: {failure}", fix)
        return
    finally:
        app.close()
    if "access_token" in result:
        yield ok(f"a token for {' '.join(scopes)} is issued, for {result.get('expires_in', 0)} s")
        return
    yield _denial(result)


def _denial(result: Mapping[str, Any]) -> Finding:
    """Say what a denial means; Entra's numbers first, which are the more exact."""
    description, code = str(result.get("error_description") or ""), str(result.get("error") or "")
    told = description.splitlines()[0] if description else code
    # The longer number first: one may begin as another does.
    known = sorted((key for key in _DENIALS if key.startswith("AADSTS") and key in description), key=len)
    name, fix = _DENIALS.get(known[-1] if known else code, ("denied", "look the message up; the provider works"))
    return error(name, f"the provider denies the application a token ({code}): {told}", fix)


def _ask(patient: Patient, url: str) -> WireResponse | Finding:
    trail = Trail(https := url.startswith("https:"), https and patient.setup.verify is not False)
    try:
        return patient.get(url, trail)
    except ConfigurationError:
        raise
    except Exception as failure:  # noqa: BLE001 - httpx's, httpcore's, ssl's and the system's; as the wire itself does
        told = as_failure(failure, f"{patient.provider[0]}:{patient.provider[1]}")
        what, _ = judge(shown_by_failure(failure, told, trail, 0.0), Known(wall=patient.clock.wall()))
        return error("provider_fails", f"{told}", _WAIT if what == "provider" else ADVICE[what])


def _fault_of(answer: WireResponse) -> Finding | None:
    """Say what is wrong with an answer that isn't the document that was asked for."""
    status, page = answer.status_code, "html" in answer.headers.get("content-type", "").lower()
    if status == 429:
        after = answer.headers.get("retry-after")
        return error(
            "throttled",
            "the provider throttles this machine (429)" + (f" for {after} s" if after else ""),
            "ask less: share a store between processes, and look for one that asks in a loop",
            rule="G8",
        )
    if status >= 500:
        return error("provider_fails", f"the provider fails with status {status}", _WAIT, rule="G9")
    if status == 407:
        return error("proxy_refuses", "the proxy wants a user and a password", "put them into HTTPS_PROXY")
    if status >= 400:
        return error(
            "tenant_unknown",
            f"the provider knows no such tenant, policy or path (status {status})",
            "correct the authority",
        )
    if page or status != 200:
        return error(
            "not_the_provider",
            f"something else answers in the provider's place (status {status}, {'a page' if page else 'no document'}): "
            "a captive portal, or a proxy that inspects",
            "sign in to this network, or have the provider's host left alone by what inspects",
        )
    return None
