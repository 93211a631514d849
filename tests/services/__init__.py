"""Real processes on real brokers."""
