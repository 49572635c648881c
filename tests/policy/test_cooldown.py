"""Whom a provider has asked for patience, and for how long."""

from __future__ import annotations

import pytest

from resilient_auth._policy.cooldown import Cooldowns
from resilient_auth._policy.endpoint import Endpoint
from resilient_auth._policy.failure import Purpose
from resilient_auth._policy.levels import ProviderRequest
from resilient_auth.testing import ManualClock
from resilient_auth.token import TokenRequest

HOST = "https://login.example"


class SetBack:
    """A monotonic clock that can be set back, as when a machine is restored."""

    def __init__(self) -> None:
        self.now = 10_000.0

    def __call__(self) -> float:
        return self.now


def asked(
    scope: str, *, user: str | None = None, grant: str = "client_credentials", client: str = "app"
) -> ProviderRequest:
    return ProviderRequest.of(TokenRequest(HOST, client, grant, (scope,), user), Endpoint(HOST, "t"), Purpose.TOKEN)


def make(clock: ManualClock) -> Cooldowns:
    return Cooldowns(clock.monotonic, 5.0, 8.5)


@pytest.mark.parametrize(
    "other", [asked("b"), asked("a", user="ann"), asked("a", grant="on_behalf_of")], ids=["scope", "user", "grant"]
)
def test_another_request_is_not_throttled_with_it(other: ProviderRequest) -> None:
    """Another resource, user or grant of the same application."""
    cooldowns = make(ManualClock())
    cooldowns.begin(asked("a"), 60.0)
    assert cooldowns.left(asked("a")) == pytest.approx(60.0)
    assert cooldowns.left(other) == 0.0


def test_several_in_a_row_are_the_applications() -> None:
    """Three different ones, with none answered in between; another application goes on."""
    cooldowns = make(ManualClock())
    whole = [cooldowns.begin(asked(scope), 60.0)[1] for scope in "abc"]
    assert whole == [False, False, True]
    assert cooldowns.left(asked("d")) == pytest.approx(60.0)
    assert cooldowns.left(asked("d", client="other")) == 0.0


def test_an_answer_in_between_makes_them_their_own() -> None:
    """Who is throttled is so alone."""
    cooldowns = make(ManualClock())
    for scope in "abcdefg":
        assert not cooldowns.begin(asked(scope), 60.0)[1]
        cooldowns.answered(asked("good"))
    assert cooldowns.left(asked("good")) == 0.0


def test_all_of_one_users_are_one() -> None:
    """Who is throttled with thirty scopes throttles nobody else."""
    cooldowns = make(ManualClock())
    for n in range(30):
        cooldowns.begin(asked(f"s{n}", user="eve"), 60.0)
    assert cooldowns.left(asked("s", user="bob")) == 0.0


def test_a_clock_that_is_set_back_makes_none_longer() -> None:
    """A cool-down ends after as many seconds as it was to last."""
    clock = SetBack()
    cooldowns = Cooldowns(clock, 5.0, 8.5)
    cooldowns.begin(asked("a"), 60.0)
    clock.now -= 9_000.0
    assert cooldowns.left(asked("a")) == pytest.approx(60.0)
    clock.now += 61.0
    assert cooldowns.left(asked("a")) == 0.0


def test_those_in_a_row_get_longer() -> None:
    """A provider that never says when isn't asked every few seconds for ever; after a minute's quiet it begins anew."""
    clock = ManualClock()
    cooldowns = Cooldowns(clock.monotonic, 5.0, 18.0)

    def next_one() -> float:
        lasts, _ = cooldowns.begin(asked("a"), 1.0)
        assert cooldowns.left(asked("a")) == pytest.approx(lasts)
        clock.advance(lasts)
        return lasts

    assert [next_one() for _ in range(5)] == pytest.approx([1.0, 10.0, 15.0, 18.0, 18.0])
    clock.advance(61.0)
    assert next_one() == pytest.approx(1.0)
    assert cooldowns.begin(asked("a"), 40.0)[0] == pytest.approx(40.0)
