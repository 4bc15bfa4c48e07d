"""The whole system on simulated hardware, under one supervisor."""
