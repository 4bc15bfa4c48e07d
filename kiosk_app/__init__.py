"""What people touch: the patient journey, the vault, local records, the dermakiosk command."""

import sys

# structlog loads it wherever it is, for tracebacks that no log of ours draws: a tenth of a second a process.
sys.modules.setdefault("rich", None)  # type: ignore[arg-type]
