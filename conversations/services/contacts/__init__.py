"""The people who write: contacts, possible duplicates, changed addresses."""
