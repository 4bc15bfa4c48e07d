"""What drives the kiosk: light daemon, capture daemon, calibration, self-test."""
