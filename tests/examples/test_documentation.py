"""What the documentation shows is true of the code."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import resilient_auth

ROOT = Path(__file__).parents[2]
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").glob("*.md"), *(ROOT / "examples").rglob("*.md")])
BLOCKS = [
    pytest.param(block, id=f"{page.relative_to(ROOT)}-{number}")
    for page in PAGES
    for number, block in enumerate(re.findall(r"^```python\n(.*?)^```", page.read_text(), re.DOTALL | re.MULTILINE), 1)
]


@pytest.mark.parametrize("block", BLOCKS)
def test_a_block_of_python_compiles_and_names_what_exists(block: str) -> None:
    code = compile(block, "block", "exec")
    imports = [line for line in block.splitlines() if re.match(r"(from|import) resilient_auth", line)]
    exec("\n".join(imports), {})  # raises ImportError for a name that isn't there
    for name in re.findall(r"\bra\.(\w+)", block):
        assert name in resilient_auth.__all__, name
    assert code is not None


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_a_module_and_a_page_that_are_named_exist(page: Path) -> None:
    text = page.read_text()
    for target in re.findall(r"\]\((?!https?:)([^)#]+)", text):
        assert (page.parent / target).exists(), target
    for path in re.findall(r"`((?:_\w+|emulator|drill)/(?:\w+\.py)?)`", text):
        assert (ROOT / "resilient_auth" / path).exists(), path


def test_the_guidance_has_every_rule_once() -> None:
    rules = re.findall(r"^\| G(\d+) \|", (ROOT / "docs" / "guidance.md").read_text(), re.MULTILINE)
    assert [int(rule) for rule in rules] == list(range(1, 28))


def test_the_test_that_the_documentation_shows_passes(tmp_path: Path) -> None:
    shown = re.findall(r"^```python\n(.*?)^```", (ROOT / "docs" / "testing.md").read_text(), re.DOTALL | re.MULTILINE)
    (tmp_path / "conftest.py").write_text(shown[0])
    (tmp_path / "test_shown.py").write_text(shown[1])
    _run("-m", "pytest", "-q", "-p", "no:cacheprovider", str(tmp_path), folder=tmp_path)


def test_the_program_that_the_documentation_shows_runs(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "emulator-and-drill.md").read_text()
    shown = re.findall(r"^```python\n(.*?)^```", page, re.DOTALL | re.MULTILINE)
    # The others are about an application of the reader's own.
    (program,) = [block for block in shown if "Emulator(" in block]
    (tmp_path / "shown.py").write_text(program)
    _run(str(tmp_path / "shown.py"), folder=tmp_path)


def _run(*arguments: str, folder: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if not name.endswith("_CA_BUNDLE")}
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    ended = subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
