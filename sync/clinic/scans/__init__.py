"""Scans as staff see them: their records, their pages."""
