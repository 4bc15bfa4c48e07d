"""Who this kiosk is: the public facts that its enrolment left in the state folder."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

from hardware.host.errors import PlainError
from hardware.host.regular_file import read_regular_file


class NotEnrolled(PlainError):
    """The state folder is not an enrolled kiosk's."""

    exit_status = 2


@dataclass(frozen=True)
class Identity:
    """The kiosk's id, its clinic's name, its epoch (a reimaged kiosk starts a new one)."""

    kiosk: UUID
    clinic: str
    epoch: int

    @classmethod
    def read(cls, state: Path) -> Identity:
        """The identity in `state`/identity.json. Raises NotEnrolled."""
        path = state / "identity.json"
        try:
            facts = json.loads(read_regular_file(path))
            return cls(kiosk=UUID(facts["kiosk"]), clinic=str(facts["clinic"]), epoch=int(facts["epoch"]))
        except FileNotFoundError as error:
            raise NotEnrolled(
                f"{state} is not an enrolled kiosk's: it has no identity.json. "
                "Run 'dermakiosk provision enrol' first."
            ) from error
        except OSError as error:
            raise NotEnrolled(f"{path} cannot be read ({error.strerror}). Make it readable.") from error
        except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
            raise NotEnrolled(f"{path} is damaged. Enrol the kiosk again.") from error
