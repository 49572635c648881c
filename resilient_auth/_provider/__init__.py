"""MSAL and the wire: what asks a provider, and how."""
