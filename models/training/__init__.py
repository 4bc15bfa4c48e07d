"""How the shipped numbers and networks were made."""
