"""Run the measurements and print them; ratios within one run are what counts, since machines differ and are noisy."""

from __future__ import annotations

import os
import sys

# In the environment these beat `verify=` in requests, on which the peers run.
for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
    os.environ.pop(name, None)

from . import cached_token, credential, downstream, import_time, signin, telemetry, users, verify  # noqa: E402

SECTIONS = {
    "cached-token": cached_token.run,
    "credential": credential.run,
    "downstream": downstream.run,
    "import": import_time.run,
    "signin": signin.run,
    "telemetry": telemetry.run,
    "verify": verify.run,
    "users": users.run,
}


def main(argv: list[str]) -> int:
    """Run the named sections, or all."""
    unknown = set(argv) - SECTIONS.keys()
    if unknown:
        print(f"there is no {sorted(unknown)[0]}; there are {', '.join(SECTIONS)}", file=sys.stderr)
        return 2
    for section in argv or SECTIONS:
        SECTIONS[section]()
    return 0


sys.exit(main(sys.argv[1:]))
