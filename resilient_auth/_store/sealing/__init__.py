"""Sealing: what a store writes is encrypted, and what it reads is verified."""
