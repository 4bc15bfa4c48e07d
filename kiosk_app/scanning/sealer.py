"""The sealer: turns Findings into an envelope that only the clinic can open."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timezone
from pathlib import Path
from uuid import UUID

from pydantic import ValidationError

from hardware.host.errors import PlainError
from hardware.host.regular_file import read_regular_file, read_regular_text
from kiosk_app.scanning.identity import Identity, NotEnrolled
from sync.wire.clinic_keys import ClinicKeys
from sync.wire.envelope import EnvelopeError, Header, seal
from sync.wire.findings import Findings
from sync.wire.keys import KeyRefused, load_public_key, load_signing_key
from sync.wire.messages import (
    MOST_NAMED,
    Consent,
    Message,
    WithdrawMessages,
    result_kind,
    wrong_places,
)
from sync.wire.statement import StatementError


class SealerError(PlainError):
    """A message cannot be sealed now; the measurements stay in the records until it can."""


class Sealer:
    """Seals to the newest opening key of the clinic's key set, which is read and verified at each use."""

    def __init__(self, state: Path, board: str, simulated: bool) -> None:
        self._state = state
        self._board, self._simulated = board, simulated
        self._identity = Identity.read(state)
        self._version = 0
        try:
            self._signing_key = load_signing_key(read_regular_file(state / "app" / "result.key"))
            root = read_regular_text(state / "clinic-root.pub")
            self._root = load_public_key(bytes.fromhex(root.strip()))
        except OSError as error:
            raise NotEnrolled(
                f"This kiosk's key {error.filename} cannot be read ({error.strerror}). Enrol the kiosk again."
            ) from error
        except KeyRefused as error:
            raise NotEnrolled(f"This kiosk's keys cannot be used: {error} Enrol the kiosk again.") from error
        except ValueError as error:
            raise NotEnrolled("This kiosk's keys are damaged. Enrol the kiosk again.") from error

    @property
    def epoch(self) -> int:
        """The epoch that sequence numbers count in."""
        return self._identity.epoch

    def seal_result(
        self,
        message_id: UUID,
        sequence: int,
        *,
        scan: UUID,
        patient_reference: str | None,
        captured_at: datetime,
        consent: dict[str, str],
        findings: Findings,
        supersedes: UUID | None = None,
    ) -> bytes:
        """The envelope of one scan's result. Raises SealerError."""
        try:
            message = result_kind(findings)(
                scan=scan,
                patient_reference=patient_reference,
                captured_at=captured_at,
                board=self._board,
                simulated=self._simulated,
                consent=Consent.model_validate(consent),
                findings=findings,
                supersedes=supersedes,
            )
        except ValidationError as error:
            # The error itself quotes measurements, which belong in no log.
            places = ", ".join(wrong_places(error))
            raise SealerError(f"The result does not follow its schema, at: {places}.") from None
        return self._seal(message, message_id, sequence)

    def seal_withdraw(
        self, message_id: UUID, sequence: int, *, scan: UUID, reason: str, messages: Sequence[UUID]
    ) -> bytes:
        """The envelope that has the clinic erase a scan, which `messages` carried. Raises SealerError."""
        facts = {"scan": scan, "at": datetime.now(timezone.utc), "reason": reason}
        message = WithdrawMessages.model_validate(facts | {"messages": tuple(messages)[-MOST_NAMED:]})
        return self._seal(message, message_id, sequence)

    def _clinic_keys(self) -> ClinicKeys:
        path = self._state / "clinic-keys.cose"
        try:
            clinic_keys = ClinicKeys.verify(read_regular_file(path), self._root, newer_than=self._version - 1)
        except OSError as error:
            raise SealerError(f"The clinic's keys in {path} cannot be read ({error.strerror}).") from error
        except StatementError as error:
            raise SealerError(f"The clinic's keys in {path} cannot be used: {error}") from error
        self._version = clinic_keys.version
        return clinic_keys

    def _seal(self, message: Message, message_id: UUID, sequence: int) -> bytes:
        recipient = self._clinic_keys().seal_to
        try:
            header = Header.of(
                message,
                kiosk=self._identity.kiosk,
                epoch=self._identity.epoch,
                sequence=sequence,
                signer=self._signing_key,
                recipient=recipient,
                message_id=message_id,
            )
            return seal(message, header, self._signing_key, recipient)
        except (EnvelopeError, KeyRefused) as error:
            raise SealerError(f"The message could not be sealed: {error}") from error
        except ValidationError:
            # The error itself quotes what it was given, which belongs in no log.
            raise SealerError("The message could not be sealed: its header is not valid.") from None
