"""What is remembered of ended sessions, and found again."""
