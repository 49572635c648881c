"""Look at what an application will meet before it meets it, and say what is wrong and what mends it."""

from __future__ import annotations

from .configuration import Setup, read_setup
from .examination import CHECKS, Check, examine
from .finding import Finding, Severity, exit_status

__all__ = ["CHECKS", "Check", "Finding", "Setup", "Severity", "examine", "exit_status", "read_setup"]
