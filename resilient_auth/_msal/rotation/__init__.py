"""Client credentials that are replaced while the application runs (G24)."""
