"""A Lua script on Redis: one round trip adds, and takes back what does not fit. It expires, and nothing is kept."""

import redis
from django.conf import settings
from django.http import HttpResponse

from tests.benchmarks.guards.base import Guard
from tests.benchmarks.middleware import NoOp

server = redis.Redis.from_url(settings.REDIS_URL)
add = server.register_script("""
local used = redis.call("INCRBY", KEYS[1], ARGV[1])
if used == tonumber(ARGV[1]) then
    redis.call("EXPIRE", KEYS[1], 86400)
end
if used > tonumber(ARGV[2]) then
    redis.call("DECRBY", KEYS[1], ARGV[1])
    return 0
end
return 1
""")


class Script(NoOp):
    """Asks the script."""

    async_capable = False

    def process_view(self, request, view, args, kwargs):
        caller = request.caller
        return None if add(keys=[caller.key], args=[1, caller.limit]) else HttpResponse(status=429)


class RedisScript(Guard):
    """Counts under the caller's key."""

    middleware = f"{__name__}.Script"

    def used(self, caller):
        return int(server.get(caller.key))


guard = RedisScript()
