"""The channel simulator: a provider to play with."""
