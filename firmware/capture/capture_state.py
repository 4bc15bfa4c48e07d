"""What the capture daemon does with its camera."""

from __future__ import annotations

from hardware.host.state_name import StateName


class CaptureState(StateName):
    """At this moment, as the daemon's status says it."""

    IDLE = "idle"  # nobody looks, and no light is on
    PREVIEW = "preview"  # somebody looks at the preview, in its light
    CLOSE_UP = "close_up"  # the close-up camera looks
    CAPTURING = "capturing"  # the pictures of one phase are taken
