"""How a process without Django asks one that has it set up."""

from functools import partial
from importlib import import_module


def measure(name, *arguments, **options):
    """Return what a worker calls: a function of `measures`, which only a process with Django set up can import."""
    return partial(_call, name, *arguments, **options)


def _call(name, *arguments, **options):
    return getattr(import_module("tests.benchmarks.measures"), name)(*arguments, **options)
