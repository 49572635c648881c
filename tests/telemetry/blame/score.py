"""How often the right one is blamed, over everything that can break."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from namespace import Namespace

__all__ = ["IN_TIME", "LONG", "SHORT", "Told", "score", "told_of"]

SCENE = Path(__file__).with_name("scene.py")
#: When it breaks, the resolver, and the cases; all, where none are named.
SHORT: tuple[tuple[str, ...], ...] = (
    ("warm", "silent"),
    ("warm", "closed", "name-gone"),
    ("warm", "unknown", "name-gone"),
    ("warm", "silent", "no-descriptors"),
    ("cold", "silent", "drop", "reject"),
)
LONG = (
    *SHORT,
    ("cold", "silent"),
    ("idle", "silent"),
    ("cold", "closed", "name-gone"),
    ("cold", "unknown", "name-gone"),
)


#: Seconds within which a verdict is to be there.
IN_TIME = 10.0


@dataclass(frozen=True)
class Told:
    """What was told of a case."""

    case: str
    right: list[str]
    #: Whether the provider has no part in it.
    local: bool
    when: str
    told: str
    evidence: list[str]
    seconds: float

    @property
    def verdict(self) -> str:
        if self.told in self.right:
            return "right"
        return "unknown" if self.told == "unknown" else "wrong"

    def __str__(self) -> str:
        about = "; ".join(self.evidence)
        return f"{self.verdict:8}{self.when:5} {self.case:26}{self.told:11}{self.seconds:5.1f} s  {about}"


def told_of(runs: Iterable[tuple[str, ...]]) -> list[Told]:
    """Break all that, each run in a network of its own, all at once."""

    def carry_out(run: tuple[str, ...]) -> list[Told]:
        with Namespace() as namespace:
            done = namespace.run(sys.executable, str(SCENE), *run, capture_output=True, check=False, timeout=110)
            assert done.returncode == 0, done.stderr
            return [Told(**json.loads(line)) for line in done.stdout.splitlines()]

    with ThreadPoolExecutor() as pool:
        return [told for several in pool.map(carry_out, runs) for told in several]


def score(found: Iterable[Told]) -> tuple[float, list[Told], list[Told]]:
    """Return the share that is right, what isn't, and where the provider was blamed for what is local."""
    all_told = list(found)
    amiss = [told for told in all_told if told.verdict != "right"]
    return 1 - len(amiss) / len(all_told), amiss, [told for told in amiss if told.local and told.told == "provider"]
