"""The kiosk end of the wire: outbox and agent."""
