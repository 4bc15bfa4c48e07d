"""Both ends of the wire between kiosk and clinic."""
