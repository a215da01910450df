"""Messages and events that channels deliver, unprocessed events and their replay."""
