"""What may stand before a view, a module for each; BENCHMARK_GUARD names the one of this process."""

from importlib import import_module

from django.conf import settings

guard = import_module(f"{__name__}.{settings.BENCHMARK_GUARD or 'nothing'}").guard
