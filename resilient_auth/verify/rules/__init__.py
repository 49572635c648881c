"""What a token must say, what it says, and what a call asks of it: pure, with the time as an argument (G16)."""
