"""Receiving: from the broker into the database, opened there; receipts, quarantine, withdrawals, erasing."""
