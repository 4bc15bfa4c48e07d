"""The phantom: a face made from a seed, of which everything that can be measured is known."""
