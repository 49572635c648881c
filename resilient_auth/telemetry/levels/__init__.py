"""Service levels: how much is asked for and how much of it succeeds, against the period before, and who is told (G25)."""
