"""Any credential: MSAL's applications and others' credentials as sources, with failover."""
