"""The state-sync protocol that other agents speak."""
