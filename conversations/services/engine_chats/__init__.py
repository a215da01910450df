"""Engine chats: chats that an engine keeps on its own servers (Retell)."""
