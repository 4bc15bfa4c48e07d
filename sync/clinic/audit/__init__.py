"""The audit: who did what at the clinic, and what was wrong with its kiosks."""
