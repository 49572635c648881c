"""What processes share, by way of a store: tokens, leases, and what is known against a provider."""
