"""A no-op middleware: what everything else is compared with."""

from tests.benchmarks.guards.base import Guard

guard = Guard()
