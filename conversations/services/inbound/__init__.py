"""What channels deliver: messages, provider events, unprocessed events and their replay."""
