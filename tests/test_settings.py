"""What an owner may choose: from code, from the environment, and what is refused."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from resilient_auth import FileStore, Settings
from resilient_auth._fleet.engines import engine_for
from resilient_auth.errors import ConfigurationError
from resilient_auth.settings import BreakerOptions, FallbackOptions, FreshnessOptions, RetryOptions
from resilient_auth.testing import ManualClock, no_jitter

#: A value for every option, other than its default.
GIVEN: dict[str, tuple[str, object]] = {
    "WAIT": ("12.5", 12.5),
    "EXCHANGE_DEADLINE": ("45", 45.0),
    "CONNECT_TIMEOUT": ("2", 2.0),
    "ATTEMPT_TIMEOUT": ("8", 8.0),
    "DISCOVERY_WAIT": ("0", 0.0),
    "DISCOVERY_REFRESH": ("600", 600.0),
    "WORKERS_PER_AUTHORITY": ("3", 3),
    "QUEUE_PER_AUTHORITY": ("0", 0),
    "MAX_TOKENS": ("50", 50),
    "DISCOVERY_HOSTS": ("login.example idp.example:8443", ("login.example", "idp.example:8443")),
    "KEEP_FRESH": ("api://a/.default; https://b/x https://b/y ;", (("api://a/.default",), ("https://b/x", "https://b/y"))),
    "KEEP_TRYING": ("60", 60.0),
    "MAX_USERS": ("70", 70),
    "MAX_STORED_TOKENS": ("20", 20),
    "EXPLAIN": ("true", True),
    "FRESHNESS_DUE_FRACTION": ("0.7", 0.7),
    "FRESHNESS_DUE_JITTER": ("0.1", 0.1),
    "FRESHNESS_EXPIRY_MARGIN": ("10", 10.0),
    "FRESHNESS_MARGIN_WAIT": ("0.5", 0.5),
    "RETRY_ATTEMPTS": ("5", 5),
    "RETRY_FIRST_DELAY": ("6", 6.0),
    "RETRY_LONGEST_DELAY": ("60", 60.0),
    "RETRY_BUDGET": ("0", 0),
    "BREAKER_CONSECUTIVE_FAILURES": ("5", 5),
    "BREAKER_FAILURE_RATE": ("0.3", 0.3),
    "BREAKER_WINDOW": ("120", 120.0),
    "BREAKER_MINIMUM_THROUGHPUT": ("4", 4),
    "BREAKER_FIRST_BREAK": ("7", 7.0),
    "BREAKER_BREAK_GROWTH": ("1.5", 1.5),
    "BREAKER_LONGEST_BREAK": ("90", 90.0),
    "BREAKER_URGENT_BREAK": ("6, 8.5", (6.0, 8.5)),
    "BREAKER_PROBES": ("2", 2),
    "BREAKER_PROBE_LEASE": ("20", 20.0),
    "BREAKER_SUCCESSES_TO_CLOSE": ("2", 2),
    "FALLBACK_GRACE": ("300", 300.0),
    "FALLBACK_GRACE_OUTAGE": ("900", 900.0),
}  # fmt: skip
GROUPS = {"freshness": FreshnessOptions, "retry": RetryOptions, "breaker": BreakerOptions, "fallback": FallbackOptions}
PREFIX = "RESILIENT_AUTH_"


def options() -> dict[str, tuple[str, str]]:
    """Name every option there is, as it is in the environment: to its group and its name."""
    found = {}
    for option in dataclasses.fields(Settings):
        if option.name in GROUPS:
            for part in dataclasses.fields(GROUPS[option.name]):
                found[f"{option.name}_{part.name}".upper()] = (option.name, part.name)
        elif option.name not in ("store", "clock", "jitter"):
            found[option.name.upper()] = ("", option.name)
    return found


def read(settings: Settings, group: str, name: str) -> object:
    return getattr(getattr(settings, group) if group else settings, name)


class TestEnvironment:
    def test_this_test_knows_every_option(self) -> None:
        """A new option must be given a value in here."""
        assert set(GIVEN) == set(options())

    @pytest.mark.parametrize("name", sorted(GIVEN))
    def test_every_option_can_be_set(self, name: str) -> None:
        """One variable sets one option, and no other."""
        text, value = GIVEN[name]
        settings = Settings.from_env(environ={PREFIX + name: text})
        group, option = options()[name]
        assert read(settings, group, option) == value
        for other, (group, option) in options().items():
            if other != name:
                assert read(settings, group, option) == read(Settings(), group, option)

    def test_all_of_them_together(self) -> None:
        """Nothing clashes."""
        settings = Settings.from_env(environ={PREFIX + name: text for name, (text, _) in GIVEN.items()})
        for name, (group, option) in options().items():
            assert read(settings, group, option) == GIVEN[name][1]

    def test_an_empty_environment_gives_the_defaults(self) -> None:
        """Other programs' variables are none of its business."""
        assert Settings.from_env(environ={"PATH": "/bin", "AUTH_WAIT": "x"}) == Settings()

    def test_the_process_environment_is_the_default(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Without `environ` the process's own is read."""
        monkeypatch.setenv("RESILIENT_AUTH_WAIT", "11")
        assert Settings.from_env().wait == 11.0

    def test_another_prefix(self) -> None:
        """An owner with two applications tells their variables apart."""
        assert Settings.from_env("BILLING_", environ={"BILLING_WAIT": "3", PREFIX + "WAIT": "4"}).wait == 3.0

    @pytest.mark.parametrize("variable", ["app_WAIT"])
    def test_a_prefix_in_lower_case(self, variable: str) -> None:
        """The prefix means what the variables' names start with."""
        assert Settings.from_env("app_", environ={variable: "3"}).wait == 3.0

    def test_an_unknown_variable_is_refused(self) -> None:
        """A misspelt name must not be taken for the default; the message lists the right ones."""
        with pytest.raises(ConfigurationError, match=r"RESILIENT_AUTH_WIAT names no option.*RESILIENT_AUTH_WAIT"):
            Settings.from_env(environ={"RESILIENT_AUTH_WIAT": "3"})

    @pytest.mark.parametrize("name", sorted(set(GIVEN) - {"KEEP_FRESH", "DISCOVERY_HOSTS"}))
    @pytest.mark.parametrize("text", ["", "soon", "1,2,3", "0x10"])
    def test_a_value_of_the_wrong_kind_names_its_variable(self, name: str, text: str) -> None:
        """And what it should have been."""
        with pytest.raises(ConfigurationError, match=rf"{PREFIX}{name} must be (a|two) .*not {text!r}"):
            Settings.from_env(environ={PREFIX + name: text})

    @pytest.mark.parametrize("text", ["nan", "inf", "-1", "1e9"])
    @pytest.mark.parametrize("name", ["WAIT", "FALLBACK_GRACE", "BREAKER_FAILURE_RATE", "RETRY_FIRST_DELAY"])
    def test_a_value_out_of_range_is_refused(self, name: str, text: str) -> None:
        """With the option's name."""
        with pytest.raises(ConfigurationError, match=options()[name][1]):
            Settings.from_env(environ={PREFIX + name: text})

    @pytest.mark.parametrize("name", ["WAIT", "BREAKER_FAILURE_RATE"])
    def test_a_value_out_of_range_names_its_variable(self, name: str) -> None:
        """`BREAKER_FAILURE_RATE`, and not `failure_rate` alone."""
        with pytest.raises(ConfigurationError, match=PREFIX + name):
            Settings.from_env(environ={PREFIX + name: "-1"})


class TestRefusals:
    @pytest.mark.parametrize(
        ("given", "told"),
        [
            ({"wait": 0}, "wait must be from 0.01 to 3600 s, not 0"),
            ({"wait": "30"}, "wait must be a number, not '30'"),
            ({"wait": True}, "wait must be a number"),
            ({"wait": float("nan")}, "wait must be a number"),
            ({"exchange_deadline": 1e9}, "exchange_deadline"),
            ({"discovery_wait": -1}, "discovery_wait"),
            ({"discovery_refresh": 59}, "discovery_refresh"),
            ({"keep_trying": -1}, "keep_trying"),
            ({"workers_per_authority": 0}, "workers_per_authority must be from 1 to 256"),
            ({"workers_per_authority": 1.5}, "workers_per_authority must be a whole number"),
            ({"queue_per_authority": -1}, "queue_per_authority"),
            ({"max_tokens": 0}, "max_tokens must be at least 1"),
            ({"freshness": None}, r"freshness must be FreshnessOptions\(\.\.\.\)"),
            ({"breaker": {"probes": 1}}, r"breaker must be BreakerOptions\(\.\.\.\)"),
            ({"retry": FallbackOptions()}, r"retry must be RetryOptions\(\.\.\.\)"),
            ({"keep_fresh": "scope"}, "keep_fresh must be a tuple of tuples"),
            ({"discovery_hosts": "idp.example"}, "discovery_hosts must be a tuple of host names"),
            ({"discovery_hosts": ("https://idp.example",)}, "'https://idp.example' isn't one"),
            ({"discovery_hosts": ("Idp.example",)}, "lower case"),
            ({"discovery_hosts": ("idp.example/",)}, "no path"),
            ({"discovery_hosts": ("idp.example:443",)}, "no port 443"),
            ({"discovery_hosts": ("",)}, "'' isn't one"),
            ({"discovery_hosts": (5,)}, "5 isn't one"),
            ({"keep_fresh": ["scope"]}, "keep_fresh must be a tuple of tuples"),
            ({"keep_fresh": ("scope",)}, "keep_fresh .* 'scope' isn't one"),
            ({"keep_fresh": ((),)}, "keep_fresh"),
            ({"keep_fresh": (("a", ""),)}, "holds what isn't a scope"),
            ({"keep_fresh": (("a", 1),)}, "holds what isn't a scope"),
            ({"keep_fresh": (("a", " b"),)}, "holds what isn't a scope"),
        ],
    )
    def test_an_option_out_of_range_is_refused_by_name(self, given: dict[str, Any], told: str) -> None:
        """At construction, with what it may be."""
        with pytest.raises(ConfigurationError, match=told):
            Settings(**given)

    @pytest.mark.parametrize(
        ("given", "told"),
        [
            (
                {"connect_timeout": 11.0},
                r"connect_timeout of 11 s exceeds attempt_timeout of 10 s: lower the one or raise the other",
            ),
            ({"attempt_timeout": 31.0}, r"attempt_timeout of 31 s exceeds exchange_deadline of 30 s"),
            (
                {"wait": 0.1, "freshness": FreshnessOptions(margin_wait=0.2)},
                r"margin_wait of 0.2 s exceeds wait of 0.1 s: lower the one or raise the other",
            ),
            pytest.param(
                {"max_tokens": 1, "keep_fresh": (("a",), ("b",))},
                r"keep_fresh",
            ),
            pytest.param(
                {"attempt_timeout": 60.0, "exchange_deadline": 60.0},
                r"probe_lease",
            ),
        ],
    )
    def test_options_that_dont_go_together_are_refused(self, given: dict[str, Any], told: str) -> None:
        """The message names both, their values and the fix."""
        with pytest.raises(ConfigurationError, match=told):
            Settings(**given)

    def test_options_are_given_by_name_only(self) -> None:
        """A bare number says nothing."""
        with pytest.raises(TypeError):
            Settings(30.0)  # type: ignore[misc]

    def test_a_longer_wait_makes_the_exchanges_deadline_longer(self) -> None:
        """Nobody waits for an exchange that was given up."""
        assert Settings(wait=90.0).deadline == 90.0
        assert Settings(wait=5.0).deadline == 30.0

    def test_a_copy_with_changes_is_checked_too(self) -> None:
        """`but` is no way around the checks."""
        assert Settings().but(wait=7.0).wait == 7.0
        with pytest.raises(ConfigurationError, match="wait"):
            Settings().but(wait=-1)


class TestSharing:
    def test_equal_settings_share_an_engine(self) -> None:
        """Two application objects with the same settings share breakers, workers and timers."""
        one = Settings(wait=17.0, keep_fresh=(("a",),), retry=RetryOptions(attempts=2))
        other = Settings(wait=17, keep_fresh=(("a",),), retry=RetryOptions(attempts=2))
        assert one == other
        assert hash(one) == hash(other)
        assert engine_for(one) is engine_for(other)

    def test_other_settings_have_an_engine_of_their_own(self) -> None:
        """Whatever differs."""
        assert engine_for(Settings(wait=17.0)) is not engine_for(Settings(wait=17.5))
        assert engine_for(Settings(wait=17.0)) is not engine_for(Settings(wait=17.0, jitter=no_jitter))

    def test_a_clock_of_ones_own_is_an_engine_of_ones_own(self) -> None:
        """A test's clock moves nobody else's timers."""
        mine, yours = ManualClock(), ManualClock()
        assert engine_for(Settings(clock=mine)) is engine_for(Settings(clock=mine))
        assert engine_for(Settings(clock=mine)) is not engine_for(Settings(clock=yours))
        assert engine_for(Settings(clock=mine)).timers is engine_for(Settings(clock=mine, wait=7.0)).timers

    def test_settings_cant_be_changed(self) -> None:
        """Whoever holds them may rely on them."""
        with pytest.raises(dataclasses.FrozenInstanceError):
            Settings().wait = 1.0  # type: ignore[misc]

    def test_the_repr_leaves_clock_and_jitter_out(self) -> None:
        """It is for people."""
        text = repr(Settings())
        assert "clock" not in text
        assert "wait=30.0" in text


def test_a_store_of_ones_own_may_hand_on_what_it_is_asked(tmp_path):
    """By `__getattr__`, as one that counts or logs does; what hands on less is refused."""

    class Counted:
        def __init__(self, store):
            self.store = store

        def __getattr__(self, name):
            return getattr(self.store, name)

    with FileStore(tmp_path / "store.db") as store:
        counted = Counted(store)
        assert Settings(store=counted).store is counted
    with pytest.raises(ConfigurationError, match="store must be a FileStore, a RedisStore or a SealedStore, not"):
        Settings(store=Counted({}))
