"""What a client needs: itself, its keys, its accounts, its staff."""
