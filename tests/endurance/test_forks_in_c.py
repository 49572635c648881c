"""A fork that no hook of Python's sees: the child notices it where it uses something."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from resilient_auth.emulator import Emulator

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")


def test_everything_works_in_a_child_that_was_forked_in_c(
    idp: Emulator, directory: Path, redis_url: str, run_program: Callable[..., str]
) -> None:
    """While every lock was held, and in its child too: applications, credentials, clients, verifiers and stores."""
    idp.refresh_in = 3
    arguments = idp.url, idp.api_url, idp.ca_file, directory, redis_url
    assert run_program("forked_in_c.py", *arguments).strip() == "all of it"


def test_threads_that_fork_at_the_same_time_all_go_on(run_program: Callable[..., str]) -> None:
    """Each thread's hooks let go of what that thread holds, and of nothing else."""
    assert run_program("forking_threads.py").strip() == "480 forks"
