"""Whose fault it is: the rules, what is kept to judge by, and that one wire steers nothing of what another tells."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, replace
from email.utils import formatdate
from typing import Any, get_args

import pytest

from resilient_auth._policy.blame import sightings as kept
from resilient_auth._policy.blame.sighting import Certificate, Sighting, Symptom
from resilient_auth._policy.blame.sightings import Sightings, blames
from resilient_auth._policy.blame.verdict import ADVICE, Blame, Culprit, Known, judge
from resilient_auth._policy.endpoint import Endpoint, WireIdentity
from resilient_auth._policy.failure import Purpose
from resilient_auth._policy.levels import ProviderRequest
from resilient_auth._store.gate import StoreStatus
from resilient_auth.events import BlameChanged
from resilient_auth.health.verdict import beside_stores
from resilient_auth.testing import ManualClock, capture_events

NOW = 1_800_000_000.0
OURS, THEIRS = Certificate("a", "CN=Public", True), Certificate("b", "CN=Inspection", False)
PRIVATE, PUBLIC = Certificate("c", "CN=Private", False), Certificate("d", "CN=Another", True)
HERE, THERE = WireIdentity("here"), WireIdentity("there", label="unverified")
FINE = Sighting(trusted=True)


def judged(symptom: Symptom, known: dict[str, Any] | None = None, **seen: Any) -> str:
    return judge(Sighting(symptom=symptom, **seen), Known(**{"wall": NOW} | (known or {})))[0]


@pytest.mark.parametrize(
    ("symptom", "seen", "known", "right"),
    [
        pytest.param(Symptom.REFUSED, {}, {}, "provider", id="refused-by-its-host"),
        pytest.param(Symptom.REFUSED, {"seconds": 1e-4}, {"quickest": 0.02}, "network", id="refused-nearer-by"),
        pytest.param(Symptom.REFUSED, {"seconds": 0.02}, {"quickest": 0.02}, "provider", id="refused-from-there"),
        pytest.param(Symptom.REFUSED, {"seconds": 1e-5}, {"quickest": 1e-4}, "provider", id="too-near-to-tell"),
        pytest.param(Symptom.LED_HERE, {}, {}, "network", id="led-here"),
        pytest.param(Symptom.LED_HERE, {}, {"answered": True}, "provider", id="was-here-before"),
        pytest.param(
            Symptom.LED_HERE, {"seconds": 1e-4}, {"answered": True, "quickest": 0.02}, "network", id="led-here-since"
        ),
        pytest.param(Symptom.REFUSED, {}, {"others_fail": 1}, "unknown", id="refused-and-one-other"),
        pytest.param(Symptom.REFUSED, {}, {"others_fail": 2}, "network", id="refused-as-all-others"),
        pytest.param(
            Symptom.REFUSED, {}, {"others_fail": 2, "others_answer": 1}, "provider", id="refused-and-others-answer"
        ),
        pytest.param(Symptom.DATES, {}, {"ahead": 3600.0}, "clock", id="certificate-over-clock-ahead"),
        pytest.param(Symptom.DATES, {}, {"ahead": -3600.0}, "clock", id="certificate-early-clock-behind"),
        pytest.param(Symptom.DATES, {}, {"ahead": 1.0}, "tls", id="certificate-over-clock-right"),
        pytest.param(Symptom.DATES, {}, {}, "unknown", id="certificate-over-time-unknown"),
        pytest.param(Symptom.DATES, {}, {"wall": 100.0}, "clock", id="certificate-early-in-1970"),
        pytest.param(Symptom.ASSERTION_DATES, {}, {"ahead": -600.0}, "clock", id="assertion-clock-behind"),
        pytest.param(Symptom.ASSERTION_DATES, {}, {"ahead": 2.0}, "credential", id="assertion-clock-right"),
        pytest.param(Symptom.ASSERTION_DATES, {}, {}, "unknown", id="assertion-time-unknown"),
        pytest.param(Symptom.FAILED, {"trusted": True}, {}, "provider", id="503"),
        pytest.param(
            Symptom.FAILED, {"certificate": THEIRS}, {"certificate": OURS}, "tls", id="503-of-another-issuer"
        ),
        pytest.param(
            Symptom.FAILED, {"certificate": THEIRS}, {"certificate": PRIVATE}, "unknown", id="503-of-private-issuers"
        ),
        pytest.param(
            Symptom.FAILED, {"certificate": OURS}, {"certificate": PUBLIC}, "provider", id="503-of-public-issuers"
        ),
        pytest.param(Symptom.PAGE, {"trusted": True, "certificate": OURS}, {}, "provider", id="page-not-inspected"),
        pytest.param(Symptom.PAGE, {"trusted": True, "certificate": PRIVATE}, {}, "unknown", id="page-perhaps"),
        pytest.param(Symptom.PAGE, {}, {}, "unknown", id="page-unverified"),
        pytest.param(
            Symptom.PAGE, {"trusted": True, "certificate": THEIRS}, {"certificate": OURS}, "tls", id="page-of-another"
        ),
        pytest.param(Symptom.UNSEEN, {}, {}, "unknown", id="unseen"),
        pytest.param(Symptom.HANDSHAKE_SILENT, {}, {}, "unknown", id="handshake-silent"),
        pytest.param(Symptom.BROKE_EARLY, {}, {}, "unknown", id="broke-early"),
        pytest.param(Symptom.BEYOND_PROXY, {}, {}, "unknown", id="proxy-finds-nobody"),
        pytest.param(Symptom.STALLED, {}, {}, "process", id="stalled"),
        pytest.param(Symptom.BUNDLE, {}, {}, "tls", id="bundle"),
    ],
)  # fmt: skip
def test_the_rules(symptom: Symptom, seen: dict[str, Any], known: dict[str, Any], right: str) -> None:
    """What has two explanations is unknown."""
    assert judged(symptom, known, **seen) == right


@pytest.mark.parametrize("symptom", Symptom, ids=lambda one: one.name)
def test_each_verdict_has_evidence_and_advice(symptom: Symptom) -> None:
    """And the provider is blamed for nothing that doesn't come from its own machine."""
    what, evidence = judge(Sighting(symptom=symptom), Known(wall=NOW))
    assert evidence[0] == symptom.value
    assert ADVICE[what]
    own = {Symptom.FAILED, Symptom.MALFORMED, Symptom.NO_ANSWER, Symptom.BROKE, Symptom.REFUSED}
    assert (what == "provider") == (symptom in own)


def test_all_culprits_have_a_place() -> None:
    assert set(get_args(Culprit)) == set(ADVICE) == set(kept._ORDER)


@dataclass(eq=False)
class Out:
    """An attempt that is out."""

    certificate: bytes | None = None
    seconds: float | None = None
    trusted_wire: bool = True
    seen: Sighting = FINE

    def look(self) -> Sighting:
        return self.seen


class World:
    """Attempts at providers, by the hand of a test."""

    def __init__(self, **options: int) -> None:
        self.clock = ManualClock(NOW)
        self.sightings = Sightings(self.clock, read={one.digest.encode(): one for one in (OURS, THEIRS)}.get, **options)

    def saw(
        self, symptom: Symptom | None = None, host: str = "login.example", *, wire: WireIdentity = HERE,
        realm: str = "t", client: str = "app", purpose: Purpose = Purpose.TOKEN, **seen: Any,
    ) -> None:  # fmt: skip
        asked = ProviderRequest(Endpoint(f"https://{host}", realm, wire), purpose, client)
        attempt = Out(**{name: seen[name] for name in ("certificate", "seconds") if symptom is None and name in seen})
        self.sightings.out[attempt] = asked, self.clock.monotonic()
        if symptom is None:
            self.sightings.answered(asked, attempt, seen.get("date"))
        else:
            self.sightings.ended(asked, attempt, Sighting(symptom=symptom, **seen))

    def told(self) -> list[tuple[str, str, str]]:
        return [(blame.what, blame.authority.removeprefix("https://"), blame.client_id) for blame in self.blames()]

    def blames(self) -> list[Blame]:
        return self.sightings.blames()


@pytest.fixture
def world() -> World:
    return World()


def test_what_one_wire_saw_is_not_told_of_another(world: World) -> None:
    """A lax or broken wire of one application's is no evidence for another one's."""
    for host in ("login.example", "b.example", "c.example"):
        world.saw(None, host)
    for host in ("b.example", "c.example"):
        world.saw(Symptom.SILENT, host, wire=THERE)
    world.clock.advance(10)
    world.saw(Symptom.REFUSED)
    by_wire = {(blame.authority, blame.wire): blame for blame in world.blames()}
    assert by_wire["https://login.example", ""].what == "provider"
    assert "other" not in " ".join(by_wire["https://login.example", ""].evidence)
    assert {wire for _, wire in by_wire} == {"", "unverified"}
    # Its clock, its certificate and its answers neither.
    world.saw(None, "d.example", wire=THERE, date=formatdate(NOW - 9000, usegmt=True), certificate=b"b")
    world.saw(Symptom.DATES, "d.example")
    assert [blame.what for blame in world.blames() if blame.authority == "https://d.example"] == ["unknown"]
    world.saw(None, "login.example", wire=THERE)
    assert ("provider", "login.example", "") in world.told()


def test_what_one_authority_saw_is_not_told_of_another(world: World) -> None:
    """One that fails leaves the others alone."""
    world.saw(None, "other.example")
    world.saw(Symptom.FAILED)
    assert world.told() == [("provider", "login.example", "")]


def test_an_applications_own_is_not_everybodys(world: World) -> None:
    """Neither its credential, nor that it is throttled; and another one's success doesn't hide it."""
    world.saw(Symptom.CREDENTIAL, client="one")
    world.saw(Symptom.THROTTLED, client="two")
    world.saw(None, client="three")
    assert sorted(world.told()) == [("credential", "login.example", "one"), ("throttled", "login.example", "two")]
    world.saw(None, client="one")
    assert world.told() == [("throttled", "login.example", "two")]


def test_one_tenants_trouble_is_ended_by_its_own_success(world: World) -> None:
    """Not by another one's, nor by a discovery document."""
    world.saw(Symptom.FAILED, realm="one")
    world.saw(None, realm="two")
    world.saw(None, realm="one", purpose=Purpose.DISCOVERY)
    assert world.told() == [("provider", "login.example", "")]
    world.saw(None, realm="one")
    assert world.told() == []


def test_what_cannot_be_reached_is_over_with_the_first_answer(world: World) -> None:
    """Whoever asked; a page is no answer."""
    world.saw(Symptom.SILENT, realm="one")
    world.saw(Symptom.PAGE, realm="two")
    assert world.told() == [("network", "login.example", "")]
    world.saw(Symptom.FAILED, realm="two")
    assert world.told() == [("provider", "login.example", "")]
    world.saw(None, realm="two")
    assert world.told() == []


def test_the_others_are_evidence(world: World) -> None:
    """Those that can't be reached either make a refusal the network's, in both directions."""
    for host in ("a.example", "b.example", "c.example"):
        world.saw(None, host)
    world.clock.advance(10)
    for host in ("a.example", "b.example", "c.example"):
        world.saw(Symptom.REFUSED, host)
    assert {what for what, _, _ in world.told()} == {"network"}
    assert "2 other authorities can't be reached either" in world.blames()[0].evidence
    world.saw(None, "a.example")
    assert world.told() == [("provider", "b.example", ""), ("provider", "c.example", "")]
    assert "another authority answered since, over the same wire" in world.blames()[0].evidence


def test_each_change_is_told_once(world: World) -> None:
    """Also where it is another one's failure that changes it; and that it is over."""
    with capture_events() as events:
        world.saw(Symptom.FAILED)
        world.saw(Symptom.FAILED)
        world.saw(Symptom.SILENT)
        world.saw(None)
        world.saw(None)
        world.saw(Symptom.CREDENTIAL)
    told = [event for event in events if isinstance(event, BlameChanged)]
    assert [(event.previous, event.what, event.client_id) for event in told] == [
        ("nobody", "provider", ""), ("provider", "network", ""), ("network", "nobody", ""),
        ("nobody", "credential", "app"),
    ]  # fmt: skip
    assert str(told[0]).startswith(
        "To blame for what fails at https://login.example: provider, before that nobody (it answers with a failure"
    )


def test_since_when_is_told(world: World) -> None:
    """From the first failure on, whatever follows; and not for ever after the last."""
    world.saw(Symptom.SILENT)
    world.clock.advance(100)
    world.saw(Symptom.REFUSED)
    assert [blame.since for blame in world.blames()] == [NOW]
    world.clock.advance(901)
    assert world.blames() == []


def test_an_attempt_that_is_out_for_long_is_looked_at(world: World) -> None:
    """Before its time is over, which may be longer than anybody wants to wait."""
    asked = ProviderRequest(Endpoint("https://login.example", "t", HERE), Purpose.TOKEN, "app")
    attempt = Out(seen=Sighting(symptom=Symptom.NO_ANSWER))
    world.sightings.out[attempt] = asked, world.clock.monotonic()
    assert world.told() == []
    world.clock.advance(5)
    assert world.told() == [("provider", "login.example", "")]
    world.sightings.answered(asked, attempt, None)
    assert world.told() == []


def test_a_regions_probe_blames_nobody(world: World) -> None:
    """It asks what isn't there on most machines."""
    world.saw(Symptom.SILENT, purpose=Purpose.REGION)
    assert world.told() == []


def test_what_is_kept_is_bounded() -> None:
    """However many authorities, tenants and applications fail."""
    world = World(most=20)
    for number in range(30):
        world.saw(Symptom.SILENT, f"{number}.example")
    for number in range(kept._MOST_PARTS):
        world.saw(Symptom.CREDENTIAL, "one.example", client=str(number))
        world.saw(Symptom.FAILED, "one.example", realm=str(number))
    assert len(world.sightings._records) == 20
    assert len(world.sightings._records[Endpoint("https://one.example", "", HERE)].parts) == kept._MOST_PARTS


def test_an_attempt_at_what_was_forgotten_brings_nothing_back(world: World) -> None:
    """Its application was closed meanwhile."""
    asked = ProviderRequest(Endpoint("https://login.example", "t", HERE), Purpose.TOKEN, "app")
    attempt = Out()
    world.sightings.out[attempt] = asked, world.clock.monotonic()
    world.sightings.forget(asked.site)
    world.sightings.ended(asked, attempt, Sighting(symptom=Symptom.BROKE))
    world.sightings.answered(asked, attempt, None)
    assert world.told() == []


def test_a_clock_set_after_the_last_date_is_found(world: World) -> None:
    """The last `Date` and the time since, which no setting changes, say what time it is."""
    world.saw(None, date=formatdate(NOW, usegmt=True))
    world.clock.advance(50)
    world.clock.jump(3950)
    world.saw(Symptom.DATES)
    assert "this machine's clock is 3950 s ahead of the provider's Date" in world.blames()[0].evidence


def test_text_from_the_wire_is_bounded_and_printable(world: World) -> None:
    """An issuer may write anything into its certificate."""
    odd = Certificate("x", "CN=\x1b[2J\nforged line " + "x" * 500, False)
    world.saw(None, certificate=b"a")
    world.saw(Symptom.FAILED, detail="a\r\nb" * 400, certificate=odd)
    (blame,) = world.blames()
    assert all(text.isprintable() and len(text) <= 200 for text in blame.evidence)
    json.dumps(dataclasses.asdict(blame))


def test_applications_with_other_settings_tell_the_same_once() -> None:
    """Each has a record of its own."""
    one, other = World(), World()
    one.saw(Symptom.SILENT, "twice.example")
    other.saw(Symptom.SILENT, "twice.example")
    assert len([blame for blame in blames() if blame.authority == "https://twice.example"]) == 1


@pytest.mark.parametrize(
    ("target", "state", "evidence"),
    [("redis", "ok", "the redis store works"), ("redis", "failing", "the redis store fails too (timeout)"),
     ("file", "ok", None), ("redis", "closed", None)],
)  # fmt: skip
def test_a_store_on_another_host_is_evidence(target: str, state: Any, evidence: str | None) -> None:
    """It says something of the network, and changes no verdict."""
    blame = Blame(what="network", authority="https://a", since=NOW, evidence=("x",))
    store = StoreStatus(target=target, state=state, last_code="timeout", rejected=0)
    told = beside_stores(blame, [store])
    assert told.evidence == (("x", evidence) if evidence else ("x",))
    assert replace(told, evidence=()) == replace(blame, evidence=())
