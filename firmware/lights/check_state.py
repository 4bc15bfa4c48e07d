"""How far the light check is that staff asked for."""

from __future__ import annotations

from hardware.host.state_name import StateName


class CheckState(StateName):
    """Since the light daemon began."""

    NONE = "none"  # nobody has asked for one
    RUNNING = "running"  # its pulse is on, or darkness is being waited for
    PASSED = "passed"  # the lamp was seen, where it had to be, and darkness after it
    FAILED = "failed"  # it was not, or the check was cut short
