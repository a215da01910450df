"""The state-sync protocol for agents that run elsewhere; it calls a conversation a session."""
