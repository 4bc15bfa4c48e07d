"""What goes wrong at the clinic, said in one sentence each."""

from __future__ import annotations


class ClinicError(Exception):
    """Something failed; the message says what, why, what to do."""

    exit_status = 1


class ClinicUsageError(ClinicError):
    """The command or its input is wrong."""

    exit_status = 2
