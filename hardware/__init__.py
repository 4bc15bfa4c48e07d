"""What the kiosk is: board profiles, Frame and Capture, wiring, and its simulation."""
