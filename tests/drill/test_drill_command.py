"""The command line: what is refused, and what the exit status says."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from resilient_auth.drill import main
from resilient_auth.drill.command import _check_files, exit_status
from resilient_auth.drill.plan import QUICK, SCENARIOS, Plan
from resilient_auth.drill.run import Outcome


def test_the_exit_status_is_1_when_the_sdk_misses_one_request(outcome: Callable[..., Outcome]) -> None:
    """One of a hundred in one of two faults is enough; what MSAL does changes nothing."""
    assert exit_status([outcome(), outcome(scenario=1)]) == 0
    assert exit_status([outcome(), outcome(missed=1, scenario=1)]) == 1
    assert exit_status([]) == 1


@pytest.mark.parametrize(
    ("argv", "hint"),
    [
        (["--fault", "earthquake"], "there is no fault 'earthquake': use one of http_503"),
        (["--threads", "0"], "threads must be a whole number from 1 to 256"),
        (["--outage", "540"], "token-lifetime of 320 s ends before the drill"),
        (["--refresh-in", "400"], "refresh-in of 400 s exceeds token-lifetime"),
        (["--report", "/nowhere/at/all.html"], "name a file in a folder that exists"),
        (["--json", "/tmp"], "can't write /tmp"),
        (["--report", "/proc/drill.html", "--fault", "503", "--outage", "1"], "can't write /proc/drill.html: "),
        (["--json", "/proc/drill.json", "--fault", "503", "--outage", "1"], "can't write /proc/drill.json: "),
        (["--threads", "many"], "invalid int value"),
        (["--unknown"], "unrecognized arguments"),
    ],
)
def test_bad_usage_ends_with_2_before_anything_starts(
    argv: list[str], hint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """The message names the option and the way out."""
    assert main(argv) == 2
    assert hint in capsys.readouterr().err


def test_drills_side_by_side_take_no_report_from_each_other(tmp_path: Path) -> None:
    """Whoever sees whether it can be written makes nothing there, and takes nothing away."""
    report, begin = tmp_path / "drill-report.html", threading.Barrier(4)

    def look() -> None:
        begin.wait()
        for _ in range(200):
            _check_files(str(report))

    with ThreadPoolExecutor(4) as threads:
        looks = [threads.submit(look) for _ in range(4)]
        for one in looks:
            one.result()
    assert not list(tmp_path.iterdir())


def test_what_is_there_already_stays_until_there_is_something_to_write(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """And nothing is left behind by a drill that didn't begin."""
    (tmp_path / "old.html").write_text("of yesterday")
    places = ["--report", str(tmp_path / "old.html"), "--json", str(tmp_path / "new.json")]
    assert main([*places, "--app", "nowhere:build"]) == 2
    assert "no module nowhere" in capsys.readouterr().err
    assert {each.name: each.read_text() for each in tmp_path.iterdir()} == {"old.html": "of yesterday"}


def test_help_lists_the_faults(capsys: pytest.CaptureFixture[str]) -> None:
    """Help isn't an error."""
    assert main(["--help"]) == 0
    text = "".join(capsys.readouterr().out.split())
    assert all(scenario.name in text for scenario in SCENARIOS)


def test_each_fault_has_a_name_of_its_own() -> None:
    """Names are what `--fault` and the findings go by."""
    names = [scenario.name for scenario in SCENARIOS]
    assert len(set(names)) == len(names)
    assert set(QUICK) <= set(names)


def test_a_plan_spreads_its_rate_over_the_threads() -> None:
    """Twenty a second from four threads is one in 200 ms from each."""
    assert Plan().interval == pytest.approx(0.2)
