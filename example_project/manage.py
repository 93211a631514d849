#!/usr/bin/env python
"""Run the example project: `manage.py demo` sets it up, uses it and serves it."""

import os
import sys

from django.core.management import execute_from_command_line

if __name__ == "__main__":
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "example.settings")
    execute_from_command_line(sys.argv)
