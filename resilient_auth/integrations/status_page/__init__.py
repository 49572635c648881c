"""The status page in each framework: behind the owner's own authentication, or not at all."""
