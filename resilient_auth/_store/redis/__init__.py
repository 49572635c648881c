"""Redis and Valkey (extra `redis`)."""
