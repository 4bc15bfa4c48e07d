"""What people touch: the patient journey, the vault, local records, the dermakiosk command."""
