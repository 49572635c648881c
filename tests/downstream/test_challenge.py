"""What a 401 asks for: claims are read strictly, what surrounds them as services write it, anything else is plain."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from resilient_auth._policy.challenge import claims_together
from resilient_auth.downstream.challenge import LARGEST_HEADER, Challenge, parse_challenges, read

CLAIMS = '{"access_token":{"nbf":{"essential":true,"value":"1700000000"}},"ü":"?>~"}'
B64 = base64.b64encode(CLAIMS.encode()).decode()
URLSAFE = base64.urlsafe_b64encode(CLAIMS.encode()).decode()


def asks(claims: str, error: str = "insufficient_claims") -> str:
    return f'Bearer realm="", error="{error}", claims="{claims}"'


@pytest.mark.parametrize("encoded", [B64, B64.rstrip("="), URLSAFE, URLSAFE.rstrip("=")])
def test_claims_are_read_in_every_base64(encoded: str) -> None:
    """base64 and base64url, with padding and without."""
    assert read([asks(encoded)]) == CLAIMS


@pytest.mark.parametrize(
    "headers",
    [
        ['Basic realm="x"', asks(B64)],
        [f'Basic realm="a, Bearer error=\\"no\\"", {asks(B64)}'],
        [f"Negotiate abc==, {asks(B64)}"],
        [f"{asks(B64)}, Negotiate"],
        [f'bEaReR error=insufficient_claims ,claims = "{B64}"'],
        [f",, {asks(B64)} , ,"],
        ['Bearer realm="broken', asks(B64)],
    ],
)
def test_claims_are_found_among_other_challenges(headers: list[str]) -> None:
    """In several headers, in one, beside schemes with and without parameters, and beside broken ones."""
    assert read(headers) == CLAIMS


def test_a_quoted_string_is_unescaped() -> None:
    """An escaped quote is part of the value."""
    (challenge,) = parse_challenges(r'Bearer realm="say \"hi\" \\ there"')
    assert challenge == Challenge("Bearer", {"realm": r'say "hi" \ there'})


@pytest.mark.parametrize(
    "headers",
    [[], ["Bearer"], ['Bearer realm=""'], ["Basic"], [asks(B64, error="invalid_token")], [f'DPoP claims="{B64}"']],
)
def test_a_challenge_without_claims_asks_for_none(headers: list[str]) -> None:
    """Claims count in a Bearer challenge that says that they are missing, and nowhere else."""
    assert read(headers) is None


@pytest.mark.parametrize(
    "header",
    [
        'Bearer realm="unfinished',
        "Bearer =x",
        'Bearer error="insufficient_claims"',
        asks(""),
        asks("%%%"),
        asks("e30="),  # an empty object asks for nothing
        asks(base64.b64encode(b"[1]").decode()),
        asks(base64.b64encode(b"\xff\xfe").decode()),
        asks(base64.b64encode(b'{"a":').decode()),
        asks(B64 + "="),
        asks("A"),
        asks("+_+_"),
        f'{asks(B64)}, claims="{B64}"',
        asks(base64.b64encode(b'{"a":' * 900 + b"1" + b"}" * 900).decode())[:-2] + "\x00",
        "Bearer " + "a" * LARGEST_HEADER,
        "Bearer \r\nX: y",
        "é",
    ],
)
def test_malformed_claims_are_none(header: str) -> None:
    """Whatever is wrong with a challenge, it is a plain 401 then."""
    assert read([header]) is None


TENANT = "https://login.microsoftonline.com/72f988bf-86f1-41af-91ab-2d7cd011db47"


@pytest.mark.parametrize(
    ("header", "parameters"),
    [
        (
            f"Bearer authorization_uri={TENANT}/oauth2/authorize, resource_id=https://org.crm.dynamics.com/",
            {"authorization_uri": f"{TENANT}/oauth2/authorize", "resource_id": "https://org.crm.dynamics.com/"},
        ),
        (
            f"Bearer authorization_uri={TENANT}/oauth2/authorize resource_id=https://storage.azure.com",
            {"authorization_uri": f"{TENANT}/oauth2/authorize", "resource_id": "https://storage.azure.com"},
        ),
        (
            f'Bearer authorization_uri={TENANT}, Basic realm="https://app.vssps.visualstudio.com/", TFS-Federated',
            {"authorization_uri": TENANT},
        ),
        (
            f'Bearer client_id="1", token_types="app_asserted_user_v1 service_v1", authorization_uri="{TENANT}",'
            'error="invalid_token",Basic Realm=""',
            {
                "client_id": "1",
                "token_types": "app_asserted_user_v1 service_v1",
                "authorization_uri": TENANT,
                "error": "invalid_token",
            },
        ),
        (
            f'Bearer authorization_uri="{TENANT}", resource_id="https://x.fhir.azurehealthcareapis.com"',
            {"authorization_uri": TENANT, "resource_id": "https://x.fhir.azurehealthcareapis.com"},
        ),
    ],
    ids=["dataverse", "storage", "devops", "outlook", "fhir"],
)
def test_challenges_are_read_as_services_write_them(header: str, parameters: dict[str, str]) -> None:
    """Addresses that aren't quoted, and blanks in place of commas; none of them asks for claims."""
    first = next(parse_challenges(header))
    assert first == Challenge("Bearer", parameters)
    assert read([header]) is None


@pytest.mark.parametrize("separator", [", ", " "])
def test_claims_are_found_beside_addresses_that_are_not_quoted(separator: str) -> None:
    """And are read as strictly as ever."""
    parts = [f"Bearer authorization_uri={TENANT}", "error=insufficient_claims", f'claims="{B64}"']
    assert read([separator.join(parts)]) == CLAIMS
    assert read([separator.join([*parts[:2], 'claims="%%%"'])]) is None
    assert read([separator.join([*parts, f'claims="{B64}"'])]) is None


@given(st.lists(st.text(max_size=200), max_size=4))
def test_any_text_is_read_without_an_exception(headers: list[str]) -> None:
    """Garbage brings a verdict, never an exception."""
    assert isinstance(read(headers), (str, type(None)))


@given(
    st.lists(
        st.sampled_from(
            ["Bearer ", "error=", '"', "\\", ",", " ", "=", "insufficient_claims", "claims", B64, "\t", "a"]
        )
    )
)
def test_scrambled_challenges_are_read_without_an_exception(parts: list[str]) -> None:
    """Nor does what looks nearly right."""
    told = read(["".join(parts)])
    assert told is None or isinstance(json.loads(told), dict)


_NAMES = st.text("abcdefghijklmnopqrstuvwxyz-_.", min_size=1, max_size=12)
_VALUES = st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E), max_size=40)


@given(
    st.lists(
        st.tuples(_NAMES, st.dictionaries(_NAMES, _VALUES, min_size=1, max_size=4)),
        min_size=1,
        max_size=4,
    )
)
def test_what_was_written_is_read_back(challenges: list[tuple[str, dict[str, str]]]) -> None:
    """Any list of challenges survives being written into one header."""

    def quoted(value: str) -> str:
        escaped = value.replace("\\", "\\\\").replace('"', '\\"')
        return f'"{escaped}"'

    header = ", ".join(
        f"{scheme} " + ", ".join(f"{name}={quoted(value)}" for name, value in parameters.items())
        for scheme, parameters in challenges
    )
    assert list(parse_challenges(header)) == [Challenge(scheme, parameters) for scheme, parameters in challenges]


@given(
    st.dictionaries(st.text(max_size=5), st.integers() | st.text(max_size=5), min_size=1), st.booleans(), st.booleans()
)
def test_any_claims_arrive_as_they_were(claims: dict[str, object], urlsafe: bool, padded: bool) -> None:
    """Whatever JSON object is asked for, in each encoding."""
    text = json.dumps(claims)
    encoded = (base64.urlsafe_b64encode if urlsafe else base64.b64encode)(text.encode()).decode()
    assert read([asks(encoded if padded else encoded.rstrip("="))]) == text


@pytest.mark.parametrize(
    ("first", "second", "both"),
    [
        ('{"a": {"x": 1}}', '{"a": {"y": null}, "b": {}}', {"a": {"x": 1, "y": None}, "b": {}}),
        ('{"a": {"x": 1}}', '{"a": {"x": 2}}', {"a": {"x": 2}}),
        ('{"a": 1}', '{"a": {"x": 2}}', {"a": {"x": 2}}),
        ("[]", '{"a": 1}', {"a": 1}),
        ("none", '{"a": 1}', {"a": 1}),
        ('{"a": 1}', "[" * 100_000, None),
    ],
)
def test_two_challenges_are_met_together(first: str, second: str, both: Any) -> None:
    """What can't be made out is given on as it came."""
    together = claims_together(first, second)
    assert (together if both is None else json.loads(together)) == (second if both is None else both)
