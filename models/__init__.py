"""What sees: engines, manifest, networks, and every measurement made on a Capture."""
