"""The example's pages, and one that shows whatever a test asks for."""

import os
from pathlib import Path

from django.http import FileResponse, HttpResponse
from django.shortcuts import render
from django.urls import path
from django.views.generic import TemplateView

from example.urls import urlpatterns as of_the_example


def content_security_policy(get_response):
    """Middleware: let a page have nothing that it does not load from here."""

    def respond(request):
        response = get_response(request)
        response.headers["Content-Security-Policy"] = "default-src 'self'"
        return response

    return respond


def playground(request):
    """Show the HTML in `body`, with the module loaded."""
    context = {name: request.GET.get(name, "") for name in ("body", "root", "api")}
    return render(request, "playground.html", context)


def react(request):
    """Serve the page's bundle, which a test has built."""
    return FileResponse(Path(os.environ["REACT_BUNDLE"]).open("rb"), content_type="text/javascript")


def favicon(request):
    """There is none, and that is no error in anybody's console."""
    return HttpResponse(status=204)


urlpatterns = [
    path("playground/", playground),
    path("react/", TemplateView.as_view(template_name="react.html")),
    path("react.js", react),
    path("favicon.ico", favicon),
    *of_the_example,
]
