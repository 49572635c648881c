"""Tokens that are bound to a key: what their bearer must prove with each request (RFC 7800, RFC 8705, RFC 9449)."""
