"""The clinic's web pages."""
