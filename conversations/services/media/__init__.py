"""Files of messages: fetched from providers, kept, shown, and written down where somebody speaks in them."""
