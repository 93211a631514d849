"""What stands between the server and the view when nothing is counted."""

from asgiref.sync import iscoroutinefunction, markcoroutinefunction


class NoOp:
    """A middleware that does nothing, view hook included."""

    sync_capable = async_capable = True

    def __init__(self, get_response):
        self.get_response = get_response
        if iscoroutinefunction(get_response):
            markcoroutinefunction(self)
            self.process_view = self.aprocess_view

    def __call__(self, request):
        return self.get_response(request)

    def process_view(self, request, view, args, kwargs):
        return None

    async def aprocess_view(self, request, view, args, kwargs):
        return None
