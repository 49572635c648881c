"""What the package decides, told to whoever wants to know.

Every decision is a frozen dataclass with a stable `name`. No event holds a token, a secret or an assertion; whose token
it is is told as a hash, and every text is one printable line, whoever wrote it.
"""

from __future__ import annotations

from . import catalogue
from .catalogue import *  # noqa: F403 - `catalogue.__all__` is the list of events
from .codes import CODES
from .delivery import Delivery, Listener, emit, subscribe, told_later
from .event import Event

__all__ = ["CODES", "Delivery", "Event", "Listener", "emit", "subscribe", "told_later"]
__all__ += catalogue.__all__
