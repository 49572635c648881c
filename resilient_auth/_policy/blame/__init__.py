"""Whose fault it is that a provider gives no token: what attempts showed, the rules, and a bounded record."""
