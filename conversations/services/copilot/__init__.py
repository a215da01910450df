"""The copilot: conversations of signed-in users, which its protocol calls sessions."""
