"""MSAL's classes as type checkers are to see them. Nothing imports this at runtime."""
