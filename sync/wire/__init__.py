"""What crosses the wire: messages, sealing, receipts, topics."""
