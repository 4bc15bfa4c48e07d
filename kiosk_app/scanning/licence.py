"""The licence of the networks: whether patients may be measured with them."""

from __future__ import annotations

from datetime import datetime, timezone
from pathlib import Path
from uuid import UUID

from models.networks.manifest import load_manifest
from models.networks.signature import PUBLIC_KEY
from sync.wire.keys import KeyRefused, load_public_key
from sync.wire.statement import StatementError
from sync.wire.waiver import FILE, ResearchWaiver


def why_not_licensed(state: Path, kiosk: UUID, at: datetime | None = None) -> str | None:
    """Why the kiosk in `state` may measure no patient at `at` (now), in a sentence for staff; None: it may.

    Networks for research need a waiver that the clinic's manifest key signed for this kiosk and these files.
    """
    research = load_manifest().for_research
    if not research:
        return None
    names = ", ".join(research)
    way_on = (
        f"Run 'dermakiosk provision waive --state AUTHORITY --kiosk {state} …',"
        " or install networks that were trained on pictures which the clinic may use."
    )
    path = state / FILE
    try:
        key = load_public_key(bytes.fromhex((state / PUBLIC_KEY).read_text()))
        waiver = ResearchWaiver.verify(path.read_bytes(), key)
    except FileNotFoundError:
        return f"These networks are for research only: {names}; the clinic has signed no waiver. {way_on}"
    except OSError as error:
        return f"{error.filename} cannot be read ({error.strerror}), so no waiver is known. Make it readable."
    except (StatementError, KeyRefused, ValueError):
        return f"{path} is no waiver that this kiosk's clinic signed. {way_on}"
    today = (at or datetime.now(timezone.utc)).date()
    if waiver.kiosk != kiosk:
        return f"{path} was signed for another kiosk. {way_on}"
    others = [name for name, sha256 in research.items() if waiver.networks.get(name) != bytes.fromhex(sha256)]
    if others:
        return f"{path} was signed for other files than the networks {', '.join(others)} have now. {way_on}"
    if today < waiver.at.date():
        return f"{path} is from {waiver.at.date()}, and this computer's clock says {today}. Set the clock."
    if today > waiver.until:
        return f"The waiver in {path} ended on {waiver.until}. {way_on}"
    return None
