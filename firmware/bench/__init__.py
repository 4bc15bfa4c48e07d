"""The bench: what staff do with lights and camera: calibration, grey card, self-test."""
