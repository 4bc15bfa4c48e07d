"""The line: what the daemons say to each other and to the application."""
