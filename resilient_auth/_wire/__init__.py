"""The provider's wire: the http_client that MSAL is given, connections, discovery documents, redaction."""
