"""`SignIn` of each framework: `arrivals` is what they share, and the rest how each carries requests and answers."""
