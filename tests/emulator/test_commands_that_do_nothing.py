"""What can't be meant is refused at once, by its name: a fault that never happens is a test that can't fail."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest

from resilient_auth.emulator import Emulator, Fault

BROKEN = Fault.http_503()
NO_NUMBERS = ("5", True, math.nan, math.inf, -1, None)
NO_NUMBERS_IF_ANY = tuple(one for one in NO_NUMBERS if one is not None)

COMMANDS: list[tuple[Callable[..., object], str, tuple[Any, ...]]] = [
    (Emulator.fail, "fault", ("503", 503, None, Fault.http_503, Fault)),
    (partial(Emulator.fail, fault=BROKEN), "endpoint", ("tokn", None, 5, "")),
    (partial(Emulator.fail, fault=BROKEN), "count", ("2", True, 1.5, 0, -1)),
    (partial(Emulator.fail, fault=BROKEN), "seconds", NO_NUMBERS_IF_ANY),
    (partial(Emulator.fail, fault=BROKEN), "probability", (*NO_NUMBERS, 0, 1.5)),
    (
        partial(Emulator.fail, fault=BROKEN),
        "match",
        ("token", 5, {"grant_typ": "password"}, {"client_id": 5}, {"status": "200"}, ["client_id"], {5: "x"}),
    ),
    (Emulator.heal, "endpoint", ("tokn", 5, "")),
    (Emulator.deny, "grant", ("client_credential", "", None, 5, [])),
    (partial(Emulator.deny, grant="*"), "error", ("", None, 5)),
    (partial(Emulator.deny, grant="*"), "status", ("400", 200, 99, 600, True, None)),
    (Emulator.allow, "grant", ("client_credential", "", 5)),
    (Emulator.revoke, "subject_or_client_id", ("nobody@contoso.com", "", None, 5)),
    (Emulator.register, "client_id", ("", None, 5)),
    (partial(Emulator.register, client_id="c"), "secrets", ("s3cret", b"s3cret", [5], [""], 5, None)),
    (partial(Emulator.register, client_id="c"), "certificates", (b"pem", "pem", ["pem"], 5)),
    (partial(Emulator.register, client_id="c"), "federated", ({"iss": "x"}, ["iss"], "iss", [{}])),
    (Emulator.register_sign_out, "client_id", ("", None, 5)),
    (partial(Emulator.register_sign_out, client_id="c"), "backchannel", ("here", 5, "ftp://localhost/")),
    (partial(Emulator.register_sign_out, client_id="c"), "frontchannel", ("here", 5, "")),
    (Emulator.add_user, "username", ("", None, 5)),
    (partial(Emulator.add_user, username="eve"), "password", (5, b"pw")),
    (partial(Emulator.add_user, username="eve"), "oid", (5, b"oid")),
    (Emulator.authority, "tenant", ("", None, 5)),
    (partial(Emulator.sign_in, username="ann@contoso.com"), "auth_uri", ("", None, 5)),
]
FAULTS: list[tuple[Callable[..., object], str, tuple[Any, ...]]] = [
    (Fault.slow, "seconds", (*NO_NUMBERS, 0)),
    (Fault.trickle, "bytes_per_second", (*NO_NUMBERS, 0)),
    (Fault.trickle, "headers", ("no", 1, None)),
    (Fault.http_503, "json", ("no", 1, None)),
    (Fault.http_503, "retry_after", ("5", True, math.nan, math.inf)),
    (Fault.http_503_html, "retry_after", ("5", True, math.nan, math.inf)),
    (Fault.http_429, "retry_after", ("5", True, math.nan, math.inf)),
    (Fault.http_429, "as_date", ("no", 1, None)),
    (Fault.status, "code", ("503", 503.5, True, None, 199, 600)),
    (partial(Fault.status, 503), "body", (5, b"{}", {"error": "x"})),
    (partial(Fault.status, 503), "retry_after", ("5", True, math.nan)),
    (Fault.flapping, "period", (*NO_NUMBERS, 0)),
    (Fault.flapping, "inner", ("503", 5, Fault.flapping(), Fault.http_503)),
]
SETTINGS: list[tuple[str, tuple[Any, ...]]] = [
    ("token_lifetime", NO_NUMBERS),
    ("refresh_in", NO_NUMBERS_IF_ANY),
    ("revocable", ("no", 1, None)),
    ("rotate", ("sometimes", True, None, [])),
    ("one_time_refresh_tokens", ("no", 1, None)),
    ("device_code_interval", NO_NUMBERS),
    ("refresh_token_lifetime", NO_NUMBERS),
    ("policy_claim", ("p", None, [])),
    ("region", ("", 5, None)),
    ("missing_tenants", ("contoso", None, [5])),
    ("met_contexts", ("c1", None, [5])),
]


def cases(rows: list[tuple[Callable[..., object], str, tuple[Any, ...]]]) -> list[Any]:
    return [
        pytest.param(make, name, wrong, id=f"{row}-{name}-{number}")
        for row, (make, name, values) in enumerate(rows)
        for number, wrong in enumerate(values)
    ]


@pytest.fixture(scope="module")
def running() -> Iterator[Emulator]:
    with Emulator() as emulator:
        yield emulator


@pytest.mark.parametrize(("command", "name", "wrong"), cases(COMMANDS))
def test_a_command_that_would_do_nothing_is_refused(running: Emulator, command: Any, name: str, wrong: Any) -> None:
    """By its argument's name, and nothing is in force."""
    with pytest.raises(ValueError, match=f"{name}|add_user first"):
        command(running, **{name: wrong})
    assert running.state()["faults"] == []


@pytest.mark.parametrize(("make", "name", "wrong"), cases(FAULTS))
def test_a_fault_that_can_not_happen_is_not_made(make: Any, name: str, wrong: Any) -> None:
    """It would fail in the emulator, as it is met."""
    with pytest.raises(ValueError, match=name):
        make(**{name: wrong})


@pytest.mark.parametrize("text", ["", 503, None, "slow:x", "503:x", "503:nan", "refuse:5", "٥٠٣", "50x", "flapping:0"])
def test_a_text_that_names_no_fault_is_refused(text: Any) -> None:
    """On the command line too."""
    with pytest.raises(ValueError, match=r"fault|number"):
        Fault.parse(text)


@pytest.mark.parametrize(("name", "wrong"), [(name, wrong) for name, values in SETTINGS for wrong in values])
def test_a_setting_is_set_to_what_it_can_be(name: str, wrong: Any) -> None:
    """As an attribute as over HTTP; what was set stays."""
    emulator = Emulator()
    before = getattr(emulator, name)
    with pytest.raises(ValueError, match=name):
        setattr(emulator, name, wrong)
    with pytest.raises(ValueError, match=name):
        emulator.change({name: wrong})
    assert getattr(emulator, name) == before


def test_a_setting_whose_name_is_mistyped_is_told() -> None:
    """It was an attribute that nobody reads."""
    emulator: Any = Emulator()
    with pytest.raises(AttributeError, match="did you mean 'token_lifetime'"):
        emulator.token_lifetim = 5.0


@pytest.mark.parametrize(
    "plan",
    [
        [(0, 1, "503", "token")],
        [("0", 1, BROKEN, "token")],
        [(0, math.inf, BROKEN, "token")],
        [(0, math.nan, BROKEN, "token")],
        [(1, 1, BROKEN, "token")],
        [(0, 1, BROKEN, "tokn")],
    ],
)
def test_a_plan_of_what_can_not_happen_is_refused_as_a_whole(running: Emulator, plan: Any) -> None:
    """Also the part of it that could."""
    with pytest.raises(ValueError, match=r"fault|start|stop|endpoint"):
        running.schedule([(0, 60, Fault.http_429(), "token"), *plan])
    assert running.state()["faults"] == []
