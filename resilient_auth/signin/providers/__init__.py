"""The identity providers at which users sign in, and whether they can be reached."""

from .party import Party
from .provider import IdentityProvider, Use
from .watch import ProviderWatch, Sight

__all__ = ["IdentityProvider", "Party", "ProviderWatch", "Sight", "Use"]
