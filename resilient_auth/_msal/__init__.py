"""MSAL: its applications and their methods, made resilient."""
