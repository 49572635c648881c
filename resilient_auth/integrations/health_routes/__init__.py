"""Routes for probes, and for people: `routes` is what they answer, and the rest how each framework serves them."""
