"""What gunicorn (`wsgi()`) and uvicorn (`asgi`) serve."""

import django

django.setup()

from django.core.handlers.asgi import ASGIHandler
from django.core.handlers.wsgi import WSGIHandler

from tests.benchmarks.callers import all_callers
from tests.benchmarks.handlers import handlers
from tests.concurrency.worker import in_thread

GUARDED = "/guarded/"

# uvicorn imports this on its event loop, where the database may not be asked.
in_thread(all_callers)


def wsgi():
    """Both handlers as one application."""
    guarded, bare = handlers(WSGIHandler)

    def application(environ, start_response):
        return (guarded if environ["PATH_INFO"].startswith(GUARDED) else bare)(environ, start_response)

    return application


def asgi():
    """Both handlers as one application."""
    guarded, bare = handlers(ASGIHandler)

    async def application(scope, receive, send):
        if scope["type"] == "http":
            await (guarded if scope["path"].startswith(GUARDED) else bare)(scope, receive, send)

    return application
