"""What the URLconf says, without asking it for a URL."""

import re
from collections.abc import Iterable, Iterator
from typing import Final

from django.conf import settings
from django.urls import URLPattern, URLResolver, get_resolver
from django.urls.resolvers import RoutePattern

Patterns = Iterable[URLPattern | URLResolver]

# Letters, digits, "_", "/" and "-" stand for themselves, unless a quantifier follows.
LITERAL_PREFIX: Final = re.compile(r"\^((?:[\w/-](?![*?{]))*)(.*)", re.DOTALL)


def url_patterns() -> Patterns:
    """Return the patterns of ROOT_URLCONF; none in a project that serves no requests."""
    return get_resolver().url_patterns if getattr(settings, "ROOT_URLCONF", None) else []


def views(patterns: Patterns | None = None) -> Iterator[URLPattern]:
    """Walk all that lead to a view."""
    for pattern in url_patterns() if patterns is None else patterns:
        if isinstance(pattern, URLResolver):
            yield from views(pattern.url_patterns)
        else:
            yield pattern


def may_reach(path: str, patterns: Patterns, above: str = "/") -> bool:
    """Return whether a URL that begins with `path` may match one of `patterns`, which stand below the URL `above`."""
    for pattern in patterns:
        text, goes_on = _literal_prefix(pattern)
        url = above + text
        if url.startswith(path) or (goes_on and path.startswith(url)):
            return True
        if isinstance(pattern, URLResolver) and may_reach(path, pattern.url_patterns, url):
            return True
    return False


def _literal_prefix(pattern: URLPattern | URLResolver) -> tuple[str, bool]:
    """Return the text that every match of a pattern begins with, and whether the pattern has more to say."""
    written = pattern.pattern
    source = vars(written).get("_route" if isinstance(written, RoutePattern) else "_regex")
    if not isinstance(source, str):
        return "", True  # another one for each language
    if isinstance(written, RoutePattern):
        text, variable, _ = source.partition("<")
        return text, bool(variable)
    found = LITERAL_PREFIX.fullmatch(source)
    if found is None or "|" in source:
        return "", True  # more than a look can tell
    text, rest = found.groups()
    # Without a "$" a view takes whatever follows; an include leaves that to its own patterns.
    return text, rest not in ({"", "$"} if isinstance(pattern, URLResolver) else {"$", r"\Z"})
