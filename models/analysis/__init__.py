"""Every measurement made on a Capture."""
