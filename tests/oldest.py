"""Print the oldest version that the project allows of each package that it names, as pip's constraints."""

from __future__ import annotations

import tomllib
from pathlib import Path

from packaging.requirements import Requirement
from packaging.version import Version

PYPROJECT = Path(__file__).parent.parent / "pyproject.toml"


def lowest(requirement: Requirement) -> Version:
    """Return the oldest version that a requirement allows."""
    bounds = [Version(one.version) for one in requirement.specifier if one.operator in (">=", "==", "~=")]
    assert bounds, f"{requirement} has no lower bound"
    return max(bounds)


if __name__ == "__main__":
    project = tomllib.loads(PYPROJECT.read_text())["project"]
    for lists in (project["dependencies"], *project["optional-dependencies"].values()):
        for requirement in map(Requirement, lists):
            print(f"{requirement.name}=={lowest(requirement)}")
