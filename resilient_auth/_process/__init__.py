"""This process: its forks, what is alive in it, and what it has run out of."""
