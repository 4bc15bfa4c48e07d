"""How a bare board becomes a trusted kiosk and stops being one."""
