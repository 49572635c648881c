"""`mount_signals` of each framework: where a transmitter of security events finds the receiver."""
