"""What the guidance asks of an application and its description doesn't have; no network is needed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from urllib.parse import urlsplit

from ...settings import Settings
from .configuration import FLOWS
from .finding import Finding, error, note, ok, warning
from .patient import Patient

__all__ = [
    "check_backup",
    "check_challenges",
    "check_grants",
    "check_persistence",
    "check_scopes",
    "check_settings",
    "check_target",
    "is_of_application",
]

_CHINA = (".partner.microsoftonline.cn", ".chinacloudapi.cn")
_OF_USERS = frozenset({"on_behalf_of", "web_app", "native", "device_code", "password"})


def check_target(patient: Patient) -> Iterator[Finding]:
    """Look whether it is known whom to ask."""
    setup = patient.setup
    if not setup.document_url and "managed_identity" not in setup.flows:
        yield warning(
            "nothing_to_ask",
            "no authority is known, so most of what can be wrong can't be looked at",
            "give --authority https://login.microsoftonline.com/<tenant>, or set AZURE_TENANT_ID",
        )


def check_settings(patient: Patient) -> Iterator[Finding]:
    """Read the settings that stand in the environment."""
    Settings.from_env(environ=patient.environ)  # or ConfigurationError, which names the variable
    if named := sum(name.startswith("RESILIENT_AUTH_") for name in patient.environ):
        yield ok(f"{named} settings in the environment can be used")


def check_persistence(patient: Patient) -> Iterator[Finding]:
    """Look whether tokens outlive the process."""
    setup = patient.setup
    if setup.store or not setup.flows or set(setup.flows) <= {"managed_identity", "web_app_id_token"}:
        return
    yield warning(
        "no_persistence",
        "tokens are kept in memory alone: whoever restarts in an outage has none",
        "give Settings(store=FileStore(...)) or RedisStore(...), and name it here as store",
        rule="G3",
    )


def check_scopes(patient: Patient) -> Iterator[Finding]:
    """Look for scopes that change from one request to the next, and for those that a flow doesn't take."""
    setup = patient.setup
    own = "client_credentials" in setup.flows
    # An application's own token for a resource isn't its users': beside each other they are no sets that change.
    by_resource = Counter(
        (resource, own and is_of_application(scopes))
        for scopes in setup.scopes
        for resource in {_resource(scope) for scope in scopes}
    )
    for (resource, _), sets in by_resource.items():
        if sets > 1:
            yield warning(
                "scopes_dynamic",
                f"{sets} sets of scopes are asked for at {resource or 'one resource'}: each is a token of its own, "
                "which an outage can find missing",
                "ask for one fixed set, and for all consent at once",
                rule="G6",
            )
    odd = [one for scopes in setup.scopes for one in scopes if not is_of_application((one,))]
    for_users = _OF_USERS & set(setup.flows) and any(is_of_application(scopes) for scopes in setup.scopes)
    if odd and own and not for_users:
        yield error(
            "scope_not_default",
            f"{odd[0]} can't be asked for with client credentials",
            "ask for <resource>/.default",
            rule="G6",
        )


def check_grants(patient: Patient) -> Iterator[Finding]:
    """Look for the password grant."""
    if "password" not in patient.setup.flows:
        return
    how = "AZURE_USERNAME and AZURE_PASSWORD are set" if patient.setup.password_given else "flows has password"
    yield warning(
        "password_grant",
        f"{how}: the password grant is deprecated, knows no second factor and isn't backed up",
        "sign users in (web_app, native, device_code), or use the application's own identity",
        rule="G6",
    )


def check_challenges(patient: Patient) -> Iterator[Finding]:
    """Look whether continuous access evaluation is declared by those who answer its challenges, and by all of those."""
    setup = patient.setup
    if setup.is_b2c or setup.is_adfs:
        return  # neither knows of it
    declared = "cp1" in {one.lower() for one in setup.client_capabilities}
    if declared and not setup.handles_challenges:
        yield warning(
            "no_challenge_handler",
            "cp1 is declared, and nothing answers claims challenges: a revoked user gets 401 until the token is over",
            "call APIs with BearerAuth, ResilientTransport or api_client, and say handles_challenges = true",
            rule="G17",
        )
    elif declared:
        yield ok("claims challenges are declared and answered", rule="G17")
    elif _OF_USERS & set(setup.flows):
        yield note(
            "cp1_not_declared",
            "cp1 isn't declared: users' tokens live an hour, and not 20 to 28",
            "declare client_capabilities=['cp1'] where challenges are answered",
            rule="G17",
        )
    if setup.verifies_tokens and "xms_cc" not in {one.lower() for one in setup.optional_claims}:
        yield warning(
            "xms_cc_not_requested",
            "the API's manifest doesn't ask for xms_cc, so it can't know which callers take claims challenges",
            "add the optional claim xms_cc to access tokens, and name it in optional_claims",
            rule="G17",
        )


def check_backup(patient: Patient) -> Iterator[Finding]:
    """Tell, flow by flow, whether the provider's backup system serves it in an outage."""
    setup = patient.setup
    for flow in setup.flows:
        backed, why = FLOWS[flow]
        if setup.is_b2c:
            backed, why = False, "Azure AD B2C isn't backed up"
        elif setup.is_adfs:
            backed, why = False, "AD FS is its owner's"
        elif patient.provider[0].endswith(_CHINA):
            backed, why = False, "the cloud in China has none"
        if backed:
            yield note("backed_up", f"{flow}: Entra's backup system serves it, {why}", rule="G27")
        else:
            yield note(
                "not_backed_up",
                f"{flow}: Entra's backup system doesn't serve it ({why}): what the application holds is all there is",
                "keep a store, pin scopes by keep_fresh, and rehearse an outage with resilient-auth drill",
                rule="G27",
            )


def is_of_application(scopes: Sequence[str]) -> bool:
    """Return whether client credentials can ask for these."""
    return all(one.endswith("/.default") for one in scopes)


def _resource(scope: str) -> str:
    """Return whose scope it is; "" for those of Graph, which go without."""
    parts = urlsplit(scope)
    return f"{parts.scheme}://{parts.netloc}" if parts.netloc else ""
