"""Sessions on the server: records in the store, of which a browser holds an opaque id that changes."""

from .memory import DevelopmentStore
from .options import SessionOptions
from .record import Session, Who
from .sessions import Found, Sessions

__all__ = ["DevelopmentStore", "Found", "Session", "SessionOptions", "Sessions", "Who"]
