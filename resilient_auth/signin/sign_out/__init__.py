"""Sign-out that holds: in this application, at the provider, and in every process when the provider says so."""
