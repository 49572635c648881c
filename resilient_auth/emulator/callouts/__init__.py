"""What Entra and B2C send in the middle of a sign-in, and what they make of the answer."""
