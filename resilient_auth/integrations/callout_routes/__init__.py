"""Routes that an identity provider calls in the middle of a sign-in: how each framework serves a `Callout`."""
