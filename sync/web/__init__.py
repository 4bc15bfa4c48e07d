"""What the pages of kiosk and clinic have in common: how they look, and the server that gives them out."""
