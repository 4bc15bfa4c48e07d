"""The pins: what lights the lamps of a board and senses what they do."""
