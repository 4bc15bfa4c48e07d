"""Bounds: how far a moment, a number or a text of a message may go, the same at both ends of the wire."""

from __future__ import annotations

from datetime import date, datetime, timezone
from typing import Annotated

from pydantic import AwareDatetime, Field

# A kiosk without a clock says 1970, and the clocks of boards end in 2199: such a moment is wrong, and is
# taken. What lies beyond is no clock's, and what follows (zones, databases, pages) cannot reckon with it.
FIRST_MOMENT = datetime(1970, 1, 1, tzinfo=timezone.utc)
END_OF_MOMENTS = datetime(2200, 1, 1, tzinfo=timezone.utc)
# The largest packet that the broker and a kiosk take.
MAX_PACKET_BYTES = 256 * 1024
MAX_FINDINGS = 1024
MAX_MARKS = 4096

Moment = Annotated[AwareDatetime, Field(ge=FIRST_MOMENT, lt=END_OF_MOMENTS)]
Day = Annotated[date, Field(ge=FIRST_MOMENT.date(), lt=END_OF_MOMENTS.date())]
# No measurement comes near it, in any unit.
Number = Annotated[float, Field(ge=-1e9, le=1e9)]
Amount = Annotated[float, Field(ge=0, le=1e9)]
Count = Annotated[int, Field(ge=0, le=2**31 - 1)]
# Larger integers are no longer exact in every reader of JSON.
Counter = Annotated[int, Field(ge=0, le=2**53 - 1)]
# Without control characters (PostgreSQL keeps no zero byte) and without marks that turn the line around.
Line = Annotated[str, Field(max_length=128, pattern=r"^\P{C}*$")]
ShortLine = Annotated[str, Field(max_length=64, pattern=r"^\P{C}*$")]
Word = Annotated[str, Field(max_length=64, pattern=r"^[a-z][a-z0-9_]*$")]
