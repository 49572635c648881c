"""The alert rules and the dashboard, by Prometheus itself, on what a drill has scraped."""

from __future__ import annotations

import json
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from drilled import Drilled
from prometheus_client.parser import text_string_to_metric_families

from resilient_auth.telemetry.metrics import METRICS
from resilient_auth.telemetry.prometheus import name_of

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("drilled")]

DOCS = Path(__file__).parents[2] / "docs"
RULES = DOCS / "alerts" / "resilient-auth.rules.yml"
DASHBOARD = json.loads((DOCS / "alerts" / "resilient-auth.dashboard.json").read_text())
ALERTS = [rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]]
QUERIES = [
    pytest.param(target["expr"], id=f"{panel['title']} {target['refId']}")
    for panel in DASHBOARD["panels"]
    for target in panel.get("targets", ())
]
#: A second process of the job, which is well: an alert names the one that isn't.
HERE, THERE = 'job="shop", instance="web-1:9000"', 'job="shop", instance="web-2:9000"'
FILE = f'{HERE}, resilient_auth_store="file"'
IDP, API = f'{HERE}, server_address="idp"', f'{HERE}, server_address="api"'

#: For each alert: series of an hour and more of minutes, and when it fires and when it doesn't, in minutes.
VECTORS: dict[str, tuple[dict[str, str], list[int], list[int]]] = {
    "ResilientAuthDown": (
        {f'resilient_auth_verdict{{{HERE}, resilient_auth_state="down"}}': "0x9 1x9 0x9"},
        [12, 18],
        [9, 10, 25],
    ),
    "ResilientAuthAtRisk": (
        {f'resilient_auth_verdict{{{HERE}, resilient_auth_state="at risk"}}': "0x9 1x9 0x9"},
        [12, 18],
        [9, 10, 25],
    ),
    "ResilientAuthDegraded": (
        {f'resilient_auth_verdict{{{HERE}, resilient_auth_state="degraded"}}': "0x9 1x29 0x9"},
        [26, 38],
        [12, 24, 45],
    ),
    "ResilientAuthLocalFault": (
        {
            f'resilient_auth_blame{{{IDP}, resilient_auth_blame="network"}}': "_x9 1x9 _x9",
            f'resilient_auth_blame{{{IDP}, resilient_auth_blame="provider"}}': "1x40",
        },
        [12, 18],
        [8, 10, 30],
    ),
    "ResilientAuthAcquisitionsFailFast": (
        {
            f'resilient_auth_acquisitions_total{{{HERE}, resilient_auth_outcome="success"}}': "0+600x120 72000x60",
            f'resilient_auth_acquisitions_total{{{HERE}, resilient_auth_outcome="failed"}}': "0x60 0+60x60 3600x60",
        },
        [75, 110],
        [55, 140],
    ),
    "ResilientAuthAcquisitionsFailSlowly": (
        {
            f'resilient_auth_acquisitions_total{{{HERE}, resilient_auth_outcome="success"}}': "0+600x900",
            f'resilient_auth_acquisitions_total{{{HERE}, resilient_auth_outcome="failed"}}': "0x400 0+6x300 1800x200",
        },
        [690],
        [390, 420, 780],
    ),
    "ResilientAuthDenied": (
        {
            "resilient_auth_acquisitions_total{"
            f'{IDP}, resilient_auth_flow="client_credentials", resilient_auth_outcome="denied"}}': (
                "0x10 0+1x10 10x20"
            ),
            "resilient_auth_acquisitions_total{"
            f'{IDP}, resilient_auth_flow="silent", resilient_auth_outcome="denied"}}': "0+1x40",
        },
        [18, 25],
        [9, 12, 35],
    ),
    "ResilientAuthRequestsFell": (
        {f"resilient_auth_acquisitions_total{{{HERE}}}": "0+600x1500 900000+420x100"},
        [1570],
        [1450, 1505],
    ),
    "ResilientAuthVerificationsUnavailable": (
        {f'resilient_auth_verifications_total{{{IDP}, resilient_auth_verdict="unavailable"}}': ("0x10 0+5x10 50x20")},
        [15, 20],
        [9, 11, 35],
    ),
    "ResilientAuthKeysEnd": (
        {f"resilient_auth_keys_time_to_dark_seconds{{{IDP}}}": "18000-60x100 90000x10"},
        [70, 95],
        [50, 63, 105],
    ),
    "ResilientAuthGraceServed": (
        {f'resilient_auth_acquisitions_total{{{IDP}, resilient_auth_source="grace"}}': ("0x10 0+1x5 5x30")},
        [12, 20],
        [9, 35],
    ),
    "ResilientAuthThrottled": (
        {f"resilient_auth_cooldown_duration_seconds_count{{{IDP}}}": "0x10 0+1x10 10x20"},
        [16, 20],
        [12, 35],
    ),
    "ResilientAuthStoreFails": (
        {f'resilient_auth_stores{{{FILE}, resilient_auth_state="failing"}}': "0x9 1x20 0x9"},
        [21, 28],
        [15, 35],
    ),
    "ResilientAuthSignOutsPending": (
        {f"resilient_auth_removals_pending{{{HERE}}}": "0x9 2x20 0x9"},
        [21, 28],
        [15, 35],
    ),
    "ResilientAuthCredentialEnds": (
        {f'resilient_auth_credential_remaining_seconds{{{HERE}, resilient_auth_client_id="shop"}}': "2600000-1000x30"},
        [10, 25],
        [5],
    ),
    "ResilientAuthCredentialEndsSoon": (
        {f'resilient_auth_credential_remaining_seconds{{{HERE}, resilient_auth_client_id="shop"}}': "606000-100x30"},
        [15, 25],
        [5],
    ),
    "ResilientAuthCallsHang": (
        {f'resilient_auth_queue_depth{{{IDP}, resilient_auth_state="overdue"}}': "0x9 1x20 0x9"},
        [16, 28],
        [12, 35],
    ),
    "ResilientAuthDeadLetters": (
        {
            f'resilient_auth_writes{{{HERE}, resilient_auth_state="dead"}}': "0x9 1x20 0x9",
            f'resilient_auth_writes{{{HERE}, resilient_auth_state="waiting"}}': "5x40",
        },
        [12, 28],
        [9, 35],
    ),
    "ResilientAuthApiFails": (
        {
            f'resilient_auth_call_duration_seconds_count{{{API}, resilient_auth_outcome="success"}}': ("0+90x60"),
            f'resilient_auth_call_duration_seconds_count{{{API}, resilient_auth_outcome="failed"}}': (
                "0x10 0+10x20 200x30"
            ),
        },
        [25, 30],
        [9, 12, 50],
    ),
}
#: The same where what is counted has never happened before, and so is in no scrape before: as a process tells it.
BEGINNING: dict[str, tuple[dict[str, str], list[int], list[int]]] = {
    "ResilientAuthDenied": (
        {
            "resilient_auth_acquisitions_total{"
            f'{IDP}, resilient_auth_flow="client_credentials", resilient_auth_outcome="denied"}}': "_x10 3x30"
        },
        [16, 19],
        [9, 13, 25],
    ),
    "ResilientAuthRequestsFell": (
        {
            f'resilient_auth_acquisitions_total{{{HERE}, server_address="idp"}}': "0+600x1500 _x200",
            f'resilient_auth_acquisitions_total{{{HERE}, server_address="other"}}': "_x1700",
        },
        [1570, 1600],
        [1450, 1505],
    ),
    "ResilientAuthVerificationsUnavailable": (
        {f'resilient_auth_verifications_total{{{IDP}, resilient_auth_verdict="unavailable"}}': "_x10 40x30"},
        [13, 14],
        [9, 11, 20],
    ),
    "ResilientAuthGraceServed": (
        {f'resilient_auth_acquisitions_total{{{IDP}, resilient_auth_source="grace"}}': "_x10 1x30"},
        [11, 15],
        [9, 25],
    ),
    "ResilientAuthThrottled": (
        {f"resilient_auth_cooldown_duration_seconds_count{{{IDP}}}": "_x10 5x30"},
        [11, 15],
        [9, 25],
    ),
}

#: Five days of many requests and two of few, again and again: the first weekend has no week before.
WEEKS = (
    {f"resilient_auth_acquisitions_total{{{HERE}}}": "0+600x7199 4320000+60x2879 4492800+600x7199 8812800+60x2879"},
    [7200 + 120],
    [7200 - 120, 10080 + 120, 17280 - 120, 17280 + 120],
)


def tool(name: str) -> str:
    """Return where a program of Prometheus is: installed, or unpacked by tests/prometheus.sh."""
    found = shutil.which(name) or shutil.which(name, path=str(Path(sys.prefix) / "prometheus"))
    assert found is not None, f"there is no {name}: run sh tests/prometheus.sh {Path(sys.prefix) / 'prometheus'}"
    return found


def promtool(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([tool("promtool"), *arguments], capture_output=True, text=True, timeout=60, check=False)


def firing(name: str) -> str:
    """Return the series that says that an alert fires, with the labels that it should have."""
    rule = next(rule for rule in ALERTS if rule["alert"] == name)
    given = dict(re.findall(r'(\w+)="([^"]*)"', next(iter(VECTORS[name][0]))))
    by = re.search(r"by \(([^)]+)\)", rule["expr"])
    assert by is not None
    labels = {label: given[label] for label in by[1].split(", ") if label in given}
    told = {"alertname": name, "alertstate": "firing", **labels, **rule["labels"]}
    inner = ", ".join(f'{label}="{value}"' for label, value in told.items())
    return f"ALERTS{{{inner}}}"


def outcome(
    tmp_path: Path,
    series: dict[str, str],
    expected: list[tuple[int, str, list[str]]],
    *,
    rules: Path = RULES,
    every: str = "1m",
) -> None:
    """Have promtool check what queries give at some minutes: series that are 1."""
    test = {
        "rule_files": [str(rules)],
        "evaluation_interval": every,
        "tests": [
            {
                "interval": "1m",
                "input_series": [{"series": each, "values": values} for each, values in series.items()],
                "promql_expr_test": [
                    {
                        "eval_time": f"{minute}m",
                        "expr": query,
                        "exp_samples": [{"labels": one, "value": 1} for one in found],
                    }
                    for minute, query, found in expected
                ],
            }
        ],
    }
    file = tmp_path / "test.json"  # which is YAML too
    file.write_text(json.dumps(test))
    ended = promtool("test", "rules", str(file))
    assert ended.returncode == 0, ended.stdout + ended.stderr


def test_each_alert_has_its_series_and_a_place_in_the_runbook() -> None:
    """An alert without a test may never fire; one without a page wakes somebody who doesn't know what to do."""
    runbook = (DOCS / "runbook.md").read_text()
    anchors = {
        re.sub(r"[^\w -]", "", head).strip().lower().replace(" ", "-")
        for head in re.findall(r"^#+ (.*)$", runbook, re.M)
    }
    assert VECTORS.keys() == {rule["alert"] for rule in ALERTS}
    for rule in ALERTS:
        page, _, anchor = rule["annotations"]["runbook"].partition("#")
        assert page == "docs/runbook.md"
        assert anchor in anchors


@pytest.mark.parametrize(
    ("name", "vector"),
    [
        *(pytest.param(name, vector, id=name) for name, vector in VECTORS.items()),
        *(pytest.param(name, vector, id=f"{name} for the first time") for name, vector in BEGINNING.items()),
    ],
)
def test_an_alert_fires_and_ends(
    name: str, vector: tuple[dict[str, str], list[int], list[int]], tmp_path: Path
) -> None:
    """When it should, and neither before nor after, for the process or the provider that it is about."""
    series, fires, silent = vector
    well = {f'resilient_auth_verdict{{{THERE}, resilient_auth_state="ok"}}': "1x1600"}
    query = f'ALERTS{{alertname="{name}", alertstate="firing"}}'
    expected = [(minute, query, [firing(name)] if minute in fires else []) for minute in sorted((*fires, *silent))]
    outcome(tmp_path, series | well, expected)


def test_a_weekend_is_no_fall_of_requests(tmp_path: Path) -> None:
    """But the first one, which has none to be compared with. Two weeks, of this rule alone."""
    (rule,) = [rule for rule in ALERTS if rule["alert"] == "ResilientAuthRequestsFell"]
    alone = tmp_path / "rule.json"
    alone.write_text(json.dumps({"groups": [{"name": "alone", "rules": [rule]}]}))
    series, fires, silent = WEEKS
    query = 'ALERTS{alertname="ResilientAuthRequestsFell", alertstate="firing"}'
    expected = [(minute, query, [firing(rule["alert"])] if minute in fires else []) for minute in (*fires, *silent)]
    outcome(tmp_path, series, sorted(expected), rules=alone, every="5m")


def test_dead_letters_are_told_by_their_number(tmp_path: Path) -> None:
    """Three of them are three, however many processes share the store and tell of them."""
    expr = next(rule["expr"] for rule in ALERTS if rule["alert"] == "ResilientAuthDeadLetters")
    series = {f'resilient_auth_writes{{{at}, resilient_auth_state="dead"}}': "3x10" for at in (HERE, THERE)}
    outcome(tmp_path, series, [(5, f"({expr}) == bool 3", ['{job="shop"}'])])


def test_a_drill_raises_the_alert_of_its_verdict(drilled: Drilled, tmp_path: Path) -> None:
    """Ten minutes each as in the drill's health, its dark and after it: at risk meanwhile, and nothing else."""
    series = {}
    phases = [samples(drilled, phase) for phase in ("healthy", "dark", "recovery")]
    for name, labels in phases[-1]:
        values = [phase.get((name, labels), 0.0) for phase in phases]
        before, meanwhile, after = values
        grows = name.endswith(("_total", "_bucket", "_count", "_sum"))
        told = ", ".join((HERE, *(f'{label}="{value}"' for label, value in labels)))
        series[f"{name}{{{told}}}"] = (
            f"{before}x9 {before}+{(meanwhile - before) / 10}x9 {meanwhile}+{(after - meanwhile) / 10}x9"
            if grows
            else f"{before}x9 {meanwhile}x9 {after}x9"
        )
    query = 'ALERTS{alertstate="firing"}'
    at_risk = (
        'ALERTS{alertname="ResilientAuthAtRisk", alertstate="firing", severity="critical", job="shop", '
        'instance="web-1:9000"}'
    )
    outcome(tmp_path, series, [(9, query, []), (15, query, [at_risk]), (25, query, [])])


def samples(drilled: Drilled, phase: str) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    """Return a scrape's samples by name and labels."""
    return {
        (sample.name, tuple(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(drilled.scrapes[phase])
        for sample in family.samples
    }


@pytest.fixture(scope="module")
def prometheus(drilled: Drilled, tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """A Prometheus that holds a drill's scrapes, and made-up samples of each metric as another job."""
    folder = tmp_path_factory.mktemp("prometheus")
    now = int(time.time())
    (folder / "scraped.txt").write_text(as_openmetrics(drilled, now))
    made = promtool("tsdb", "create-blocks-from", "openmetrics", str(folder / "scraped.txt"), str(folder / "data"))
    assert made.returncode == 0, made.stdout + made.stderr
    (folder / "prometheus.yml").write_text(f"rule_files: [{json.dumps(str(RULES))}]\n")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    server = subprocess.Popen(
        [
            tool("prometheus"),
            f"--config.file={folder / 'prometheus.yml'}",
            f"--storage.tsdb.path={folder / 'data'}",
            f"--web.listen-address=127.0.0.1:{port}",
        ],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", params={"time": now}, trust_env=False) as client:
            ends = time.monotonic() + 30.0
            while not answers(client):
                assert server.poll() is None, "Prometheus doesn't start"
                assert time.monotonic() < ends, "Prometheus doesn't answer"
                time.sleep(0.1)
            yield client
    finally:
        server.terminate()
        server.wait(10)


def answers(client: httpx.Client) -> bool:
    try:
        return client.get("/-/ready").is_success
    except httpx.TransportError:
        return False


def as_openmetrics(drilled: Drilled, now: int) -> str:
    """Write the scrapes as so many minutes before now, and a day before that."""
    values: dict[str, dict[str, list[tuple[int, float]]]] = {}
    for at in (now - 86400, now):
        for ago, phase in ((180, "healthy"), (120, "dark"), (60, "dark"), (0, "recovery")):
            for (name, labels), value in samples(drilled, phase).items():
                told = ",".join((HERE.replace(" ", ""), *(f'{label}="{text}"' for label, text in labels)))
                values.setdefault(name, {}).setdefault(told, []).append((at - ago, value))
    for metric in METRICS.values():
        name = name_of(metric)
        for each in [f"{name}_bucket", f"{name}_count", f"{name}_sum"] if metric.kind == "histogram" else [name]:
            labels = ['job="made-up"', 'instance="none"', *(f'{of.replace(".", "_")}="some"' for of in metric.labels)]
            labels += ['le="+Inf"'] if each.endswith("_bucket") else []
            points = [(at - ago, 10.0 - ago / 60) for at in (now - 86400, now) for ago in (180, 120, 60, 0)]
            values.setdefault(each, {})[",".join(labels)] = points
    lines = [
        f"{name}{{{labels}}} {value} {at}"
        for name, series in values.items()
        for labels, points in series.items()
        for at, value in sorted(points)
    ]
    return "\n".join((*lines, "# EOF", ""))


def found(prometheus: httpx.Client, query: str, job: str) -> list[Any]:
    """Return what a panel's query finds of a job."""
    asked = query.replace("$job", job).replace("$instance", ".*").replace("$__rate_interval", "5m")
    answer = prometheus.get("/api/v1/query", params={"query": asked}).json()
    assert answer["status"] == "success", answer
    return list(answer["data"]["result"])


@pytest.mark.parametrize("query", QUERIES)
def test_a_panel_shows_something(prometheus: httpx.Client, query: str) -> None:
    """Whatever it is about: a drill has no store, for one, and its circuits may stay closed."""
    assert found(prometheus, query, ".*")


def test_most_panels_show_a_drill(prometheus: httpx.Client) -> None:
    """Names and labels are those of a real scrape, and not of the made-up one alone."""
    assert len([query for (query,) in (each.values for each in QUERIES) if found(prometheus, query, "shop")]) >= 20


def test_every_metric_is_on_the_dashboard() -> None:
    """A metric that no panel shows is one that nobody finds in the night."""
    queries = " ".join(query.values[0] for query in QUERIES)
    assert not [name for name in map(name_of, METRICS.values()) if name not in queries]


def test_prometheus_loads_the_rules(prometheus: httpx.Client) -> None:
    """All of them, without an error."""
    groups = prometheus.get("/api/v1/rules").json()["data"]["groups"]
    loaded = [rule for group in groups for rule in group["rules"]]
    assert {rule["name"] for rule in loaded} == VECTORS.keys()
    assert not [rule for rule in loaded if rule.get("lastError")]
