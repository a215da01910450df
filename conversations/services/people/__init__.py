"""Who writes to a client, under which addresses, and what they want no more of."""
