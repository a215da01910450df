"""Replies of the assistant: claimed, prompted for, written by an engine and committed; sent or streamed."""
