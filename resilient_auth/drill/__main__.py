"""Run the drill by `python -m resilient_auth.drill`."""

import sys

from . import main

if __name__ == "__main__":
    sys.exit(main())
