"""Strict token text, keys and signatures (RFC 7515, 7517, 7518)."""
