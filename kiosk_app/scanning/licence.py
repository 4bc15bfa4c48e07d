"""The licence of the networks: whether patients may be measured with them."""

from __future__ import annotations

import os
from collections.abc import Mapping
from datetime import date, datetime, timezone
from pathlib import Path
from uuid import UUID

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from hardware.host.regular_file import read_regular_file, read_regular_text
from models.networks.manifest import load_manifest
from models.networks.signature import PUBLIC_KEY
from sync.wire.keys import KeyRefused, load_public_key
from sync.wire.statement import StatementError
from sync.wire.waiver import FILE, OTHERS, ResearchWaiver


def why_not_licensed(state: Path, kiosk: UUID, at: datetime | None = None) -> str | None:
    """Why the kiosk in `state` may measure no patient at `at` (now), in a sentence for staff; None: it may.

    Networks for research need a waiver that the clinic's manifest key signed for this kiosk and these files.
    There may be others beside it; of several that fit the newest decides.
    """
    research = load_manifest().for_research
    if not research:
        return None
    way_on = (
        f"Run 'dermakiosk provision waive --state AUTHORITY --kiosk {state} …',"
        " or install networks that were trained on pictures which the clinic may use."
    )
    key_file = state / PUBLIC_KEY
    try:
        key = load_public_key(bytes.fromhex(read_regular_text(key_file)))
    except OSError as error:
        return (
            f"{key_file} cannot be read ({error.strerror}), so no waiver can be verified."
            " Copy AUTHORITY/manifest.pub there, readable for this user."
        )
    except (KeyRefused, ValueError):
        return f"{key_file} holds no key, so no waiver can be verified. Copy AUTHORITY/manifest.pub there."
    today = (at or datetime.now(timezone.utc)).date()
    fitting: list[tuple[Path, ResearchWaiver]] = []
    reasons: list[str] = []
    for path in (state / FILE, *sorted(state.glob(OTHERS))):
        if os.path.lexists(path):
            found = _fitting(path, key, kiosk, research, way_on)
            if isinstance(found, str):
                reasons.append(found)
            else:
                fitting.append((path, found))
    if fitting:
        return _why_not_today(*max(fitting, key=lambda one: one[1].at), today, way_on)
    if reasons:
        return reasons[0]
    names = ", ".join(research)
    return f"These networks are for research only: {names}; the clinic has signed no waiver. {way_on}"


def _fitting(
    path: Path, key: Ed25519PublicKey, kiosk: UUID, research: Mapping[str, str], way_on: str
) -> ResearchWaiver | str:
    """The waiver in `path` where it is for these networks of this kiosk; else why it is not."""
    try:
        waiver = ResearchWaiver.verify(read_regular_file(path), key)
    except OSError as error:
        return f"{path} cannot be read ({error.strerror}), so no waiver is known. Make it readable."
    except StatementError:
        return f"{path} is no waiver that this kiosk's clinic signed. {way_on}"
    if waiver.kiosk != kiosk:
        return f"{path} was signed for another kiosk. {way_on}"
    others = [name for name, sha256 in research.items() if waiver.networks.get(name) != bytes.fromhex(sha256)]
    if others:
        return f"{path} was signed for other files than the networks {', '.join(others)} have now. {way_on}"
    return waiver


def _why_not_today(path: Path, waiver: ResearchWaiver, today: date, way_on: str) -> str | None:
    if today < waiver.at.date():
        return f"{path} is from {waiver.at.date()}, and this computer's clock says {today}. Set the clock."
    if today > waiver.until:
        return f"The waiver in {path} ended on {waiver.until}. {way_on}"
    return None
