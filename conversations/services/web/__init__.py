"""The copilot: sessions of people who are signed in, streamed."""
