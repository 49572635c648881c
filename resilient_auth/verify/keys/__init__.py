"""Key sets that survive: fetched, kept and refreshed."""
