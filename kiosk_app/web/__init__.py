"""What every page of the kiosk needs: the door, the showings, the languages."""
