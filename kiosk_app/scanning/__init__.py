"""Scanning: from the pictures of one visit to a sealed result in the outbox, and to its destruction."""
