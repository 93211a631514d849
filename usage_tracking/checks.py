"""System checks."""

CHECKS = []
