"""What comes in: whose it is, whether it is genuine, and that it is settled once, however often it arrives."""
