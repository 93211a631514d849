"""Servers and commands that count from leases, and how they end."""
