"""Replies of the assistant: claim, prompt, engine, commit; sent or streamed."""
