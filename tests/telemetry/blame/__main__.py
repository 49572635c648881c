"""Break providers and networks for long, and count how often the right one is blamed; ROUNDS as an argument."""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from namespace import missing
from score import IN_TIME, LONG, score, told_of


def main(rounds: int) -> int:
    """Print every verdict that isn't right, and the counts; returns an exit status."""
    why = missing()
    if why is not None:
        print(why, file=sys.stderr)
        return 2
    found = []
    for number in range(rounds):
        for run in LONG:
            told = told_of([run])
            found += told
            for each in told:
                if number == 0 or each.verdict != "right":
                    print(each, flush=True)
    share, _, wronged = score(found)
    print(f"{dict(Counter(each.verdict for each in found))}: {share:.1%} right of {len(found)}")
    print(f"the provider was blamed for {len(wronged)} faults that are local")
    late = [each for each in found if each.seconds > IN_TIME]
    print(f"{len(late)} came late; the latest after {max(each.seconds for each in found):.1f} s")
    return int(share - len(late) / len(found) < 0.98 or bool(wronged))


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]) if len(sys.argv) > 1 else 1))
