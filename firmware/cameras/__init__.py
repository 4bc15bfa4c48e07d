"""The cameras: what one is, each kind of it, and the calibration that is applied to its counts."""
