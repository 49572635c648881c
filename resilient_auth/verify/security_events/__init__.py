"""Tokens that tell of something (RFC 8417): logout tokens, and security events that a provider pushes."""
