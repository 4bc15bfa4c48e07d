"""What the kiosk keeps: the vault, the local records, the keys of both."""
