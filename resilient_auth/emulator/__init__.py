"""An identity provider, an API and managed-identity endpoints on loopback that fail on command.

It imports nothing from the rest of the package: tests and drills judge the rest by what its ledger says.
Needs the extra: `pip install 'resilient-auth[emulator]'`.
"""

try:
    from .callouts.sending import CalloutOutcome
    from .command import serve
    from .commanded import InjectedFault
    from .emulator import Emulator
    from .faults import Fault
    from .ledger import Call, IssuedToken, Ledger
    from .provider.directory import User
except ImportError as error:
    from .._process.extras import raise_missing

    raise_missing("resilient_auth.emulator", "emulator", error)

__all__ = ["Call", "CalloutOutcome", "Emulator", "Fault", "InjectedFault", "IssuedToken", "Ledger", "User", "serve"]
