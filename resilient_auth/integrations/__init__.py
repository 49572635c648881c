"""Other libraries and frameworks, one file each: nothing is loaded that isn't imported by name."""
