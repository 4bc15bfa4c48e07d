"""People: the accounts of staff, and how they sign in."""
