"""`python -m resilient_auth` is the command `resilient-auth`."""

import sys

from .cli import main

sys.exit(main())
