"""An external claims service, asked resiliently."""
