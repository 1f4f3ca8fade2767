"""Training the shipped models, or one's own."""
