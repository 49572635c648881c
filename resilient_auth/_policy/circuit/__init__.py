"""What a breaker is made of: its options, the permits it gives, and what pybreaker decides by."""
