"""Run web.py through an outage of its provider on this machine, a restart included: who is signed in, and who isn't."""

import sys
from pathlib import Path

from resilient_auth.emulator import Fault

sys.path.insert(0, str(Path(__file__).parents[1]))

from web_rehearsal import main

if __name__ == "__main__":
    # The provider takes no connections.
    sys.exit(main(Path(__file__).with_name("web.py"), Fault.refuse()))
