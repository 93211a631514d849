"""Count, limit, keep, reset and show the API usage of each of your customers."""

__version__ = "0.1.0"
