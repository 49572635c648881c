"""Connections to a name, and streams, that end in time."""
