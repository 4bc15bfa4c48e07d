"""The light daemon: the rules of light safety, doses, lamp hours; and its client."""
