"""What a framework calls the routes that are mounted."""

from __future__ import annotations

__all__ = ["route_name"]


def route_name(path: str) -> str:
    """Return the name of the route at a path, another one for each path; Flask's hold no dot."""
    return f"resilient_auth{path.replace('%', '%25').replace('.', '%2E')}"
