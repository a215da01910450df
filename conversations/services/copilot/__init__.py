"""Conversations of signed-in users in the copilot."""
