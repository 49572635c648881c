"""Connections that break in the ways that faults ask for."""
