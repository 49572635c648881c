"""Rules without side effects: what is fresh, what failed, when to ask again, what may be served instead."""
