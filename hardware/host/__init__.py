"""What this computer gives every process of the kiosk."""
