"""The providers' ends of the line, as plain Python: what they post to us, and what they answer when we send."""
