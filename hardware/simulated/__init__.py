"""Pins, lights, patient, skin optics and sensor of a kiosk that is not here."""
