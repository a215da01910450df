"""The desk: what staff see of conversations and people while they work."""
