"""CSV that a spreadsheet shows and does not run."""

from typing import Final

__all__ = ["harmless"]

FORMULA: Final = ("=", "+", "-", "@", "\t", "\r", "\n")
"""What makes a spreadsheet take a cell for a formula (OWASP, "CSV Injection"); also in full width."""
FULL_WIDTH: Final = ("\uff1d", "\uff0b", "\uff0d", "\uff20")


def harmless(cell: object) -> object:
    """Return a cell as it may be written to a CSV file: text that could be a formula gets an apostrophe before it.

    An organization may choose its name, and whoever opens the file is staff.
    """
    if isinstance(cell, str) and cell.lstrip(" ").startswith((*FORMULA, *FULL_WIDTH)):
        return f"'{cell}"
    return cell
