"""One call to an API, from its deadline to its answer."""
