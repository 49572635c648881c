"""When a token is fresh, due, about to expire or over, whatever the machine's clocks do."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from resilient_auth._policy.freshness import Freshness, FreshnessOptions, assess, due_after
from resilient_auth.errors import ConfigurationError
from resilient_auth.testing import no_jitter
from resilient_auth.token import Token

WALL, NOW = 1_700_000_000.0, 1_000.0
OPTIONS = FreshnessOptions()


def token(life: float = 3600.0, due: float = 1800.0) -> Token:
    return Token("secret", "Bearer", obtained_on=WALL, obtained_at=NOW, life=life, due_after=due)


def at(seconds: float, held: Token | None = None, *, jump: float = 0.0, set_back: float = 0.0) -> Freshness:
    """Assess after so many seconds, with the wall clock set by `jump` and the monotonic one set back."""
    return assess(held or token(), WALL + seconds + jump, NOW + seconds - set_back, OPTIONS)


@pytest.mark.parametrize(
    ("age", "state"),
    [
        (0.0, Freshness.FRESH),
        (1799.999, Freshness.FRESH),
        (1800.0, Freshness.DUE),
        (3299.0, Freshness.DUE),
        (3301.0, Freshness.DUE),
        (3569.999, Freshness.DUE),
        (3570.0, Freshness.EXPIRING),
        (3599.999, Freshness.EXPIRING),
        (3600.0, Freshness.EXPIRED),
        (1e9, Freshness.EXPIRED),
    ],
)
def test_a_token_passes_through_its_states(age: float, state: Freshness) -> None:
    """Each boundary belongs to the later state, and the 300 s that MSAL throws away are served."""
    assert at(age) is state


def test_nothing_held_counts_as_expired() -> None:
    """Who holds no token waits for one."""
    assert assess(None, WALL, NOW, OPTIONS) is Freshness.EXPIRED


@pytest.mark.parametrize(("age", "state"), [(53.9, Freshness.DUE), (54.1, Freshness.EXPIRING), (60, Freshness.EXPIRED)])
def test_the_margin_of_a_short_token_is_a_tenth_of_its_life(age: float, state: Freshness) -> None:
    """A token of one minute isn't about to expire for half of it."""
    assert at(age, token(life=60.0, due=30.0)) is state


def test_no_margin_means_due_until_the_end() -> None:
    """An owner may choose never to wait for a valid token."""
    options = FreshnessOptions(expiry_margin=0.0)
    assert assess(token(), WALL + 3599.99, NOW + 3599.99, options) is Freshness.DUE


def test_a_token_due_at_its_very_end_is_fresh_until_then() -> None:
    """A provider that wants no earlier refresh isn't asked for one."""
    held = token(life=3600.0, due=3600.0)
    assert at(3599.0, held) is Freshness.FRESH
    assert at(3600.0, held) is Freshness.EXPIRED


def test_a_life_of_nothing_is_over_at_once() -> None:
    """A token that lives for 0 s is never served."""
    assert at(0.0, token(life=0.0, due=0.0)) is Freshness.EXPIRED


class TestClocks:
    def test_a_wall_clock_set_back_keeps_no_dead_token_alive(self) -> None:
        """An hour back on the wall changes nothing: the monotonic clock counts."""
        assert at(3600.0, jump=-3600.0) is Freshness.EXPIRED
        assert at(1800.0, jump=-86_400.0) is Freshness.DUE
        assert at(10.0, jump=-86_400.0) is Freshness.FRESH

    def test_a_wall_clock_set_ahead_takes_no_valid_token_away(self) -> None:
        """Nor does it cost a refresh: the time that has passed is what counts."""
        assert at(10.0, jump=7200.0) is Freshness.FRESH
        assert at(1800.0, jump=7200.0) is Freshness.DUE

    def test_a_monotonic_clock_that_was_set_back_leaves_the_wall_clock(self) -> None:
        """A machine restored from its image doesn't know how old its tokens are by that alone."""
        assert at(3600.0, set_back=3700.0) is Freshness.EXPIRED
        assert at(2000.0, set_back=2001.0) is Freshness.DUE

    @given(elapsed=st.floats(0, 10_000), jumps=st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=3))
    def test_no_jump_of_the_wall_clock_changes_an_age(self, elapsed: float, jumps: list[float]) -> None:
        """Whatever it is set to, and however often."""
        ages = {token().age(WALL + elapsed + jump, NOW + elapsed) for jump in jumps}
        assert ages == {NOW + elapsed - NOW}

    def test_a_token_from_the_future_is_not_older_than_it_is(self) -> None:
        """A negative age on both clocks counts as none."""
        assert token().age(WALL - 50.0, NOW - 50.0) == 0.0
        assert token().remaining(WALL - 50.0, NOW - 50.0) == 3600.0

    @given(
        age=st.floats(0, 10_000),
        jump=st.floats(-1e6, 1e6),
        life=st.floats(1, 100_000),
        share=st.floats(0, 1),
    )
    def test_the_states_agree_with_the_time_left(self, age: float, jump: float, life: float, share: float) -> None:
        """Whatever the clocks say, expired means that nothing is left, and anything else that something is."""
        held = token(life=life, due=life * share)
        wall, now = WALL + age + jump, NOW + age
        left = held.remaining(wall, now)
        state = assess(held, wall, now, OPTIONS)
        assert (state is Freshness.EXPIRED) == (left <= 0)
        assert left <= life
        if state is Freshness.EXPIRING:
            assert left <= 30.0 + 1e-6

    @given(times=st.lists(st.floats(0, 5000), min_size=2, max_size=10))
    def test_time_moves_a_token_one_way(self, times: list[float]) -> None:
        """A token never gets fresher."""
        order = list(Freshness)
        states = [order.index(at(age)) for age in sorted(times)]
        assert states == sorted(states)


class TestDue:
    @pytest.mark.parametrize("refresh_in", [0.0, 0.5])
    def test_at_once_is_no_word(self, refresh_in: float) -> None:
        """A token that is due as it comes would be refreshed again and again: it is due as where nothing is said."""
        assert due_after(3600.0, refresh_in, OPTIONS, lambda low, high: high) == pytest.approx(3600.0 * 0.55)

    @pytest.mark.parametrize("refresh_in", [1.0, 1800.0, 3600.0])
    def test_the_providers_word_counts(self, refresh_in: float) -> None:
        """`refresh_in` within the life is taken as it is, without jitter (G5)."""
        assert due_after(3600.0, refresh_in, OPTIONS, lambda low, high: high) == refresh_in

    @pytest.mark.parametrize("refresh_in", [None, -1.0, 3600.5, 1e12])
    def test_without_one_half_of_the_life_counts(self, refresh_in: float | None) -> None:
        """None, or one outside of the life, leaves it to the option."""
        assert due_after(3600.0, refresh_in, OPTIONS, no_jitter) == 1800.0

    def test_a_fleets_refreshes_spread(self) -> None:
        """The jitter shifts the moment by a twentieth of the life either way."""
        assert due_after(3600.0, None, OPTIONS, lambda low, high: low) == pytest.approx(1620.0)
        assert due_after(3600.0, None, OPTIONS, lambda low, high: high) == pytest.approx(1980.0)

    def test_the_jitter_is_drawn_once_for_each_token(self) -> None:
        """The moment is part of the token: looking at it again draws nothing."""
        drawn: list[tuple[float, float]] = []

        def jitter(low: float, high: float) -> float:
            drawn.append((low, high))
            return high

        held = token(due=due_after(3600.0, None, OPTIONS, jitter))
        states = [at(age, held) for age in (0.0, 1979.0, 1981.0, 1979.0)]
        assert drawn == [(-0.05, 0.05)]
        assert states == [Freshness.FRESH, Freshness.FRESH, Freshness.DUE, Freshness.FRESH]

    def test_a_refresh_is_never_due_after_the_end(self) -> None:
        """The latest fraction and the latest jitter end with the life."""
        options = FreshnessOptions(due_fraction=0.95, due_jitter=0.25)
        assert due_after(100.0, None, options, lambda low, high: high) == 100.0

    def test_a_refresh_is_never_due_before_the_token_came(self) -> None:
        """The earliest fraction and the earliest jitter leave some of the life, or are refused together."""
        try:
            options = FreshnessOptions(due_fraction=0.1, due_jitter=0.25)
        except ConfigurationError:
            return
        assert due_after(100.0, None, options, lambda low, high: low) > 0.0


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("due_fraction", 0.05),
        ("due_fraction", 0.96),
        ("due_fraction", "half"),
        ("due_fraction", True),
        ("due_jitter", -0.01),
        ("due_jitter", 0.26),
        ("expiry_margin", -1),
        ("expiry_margin", float("nan")),
        ("margin_wait", 61),
        ("margin_wait", float("inf")),
    ],
)
def test_an_option_out_of_range_is_refused_by_name(option: str, value: Any) -> None:
    """The message says which option it is and what was given."""
    with pytest.raises(ConfigurationError, match=option):
        FreshnessOptions(**{option: value})
