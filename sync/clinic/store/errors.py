"""What goes wrong at the clinic, said in one sentence each."""

from __future__ import annotations

from sync.wire.errors import PlainError


class ClinicError(PlainError):
    """Something failed; the message says what, why, what to do."""


class ClinicUsageError(ClinicError):
    """The command or its input is wrong."""

    exit_status = 2
