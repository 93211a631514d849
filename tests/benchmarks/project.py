"""The settings of the project that the comparison measures: one guard on one database, both named by the environment.

Each library is set up as its manual recommends.
"""

import os
from importlib.util import find_spec

from tests.settings import MIDDLEWARE, REDIS_URL, database

BENCHMARK_GUARD = os.environ.get("BENCHMARK_GUARD", "")
# Whatever this process writes is found, and removed, by this.
BENCHMARK_KEY = os.environ.get("BENCHMARK_KEY", "benchmark")
BENCHMARK_ASYNC = "BENCHMARK_ASYNC" in os.environ

DATABASES = {"default": database(os.environ["DATABASE_URL"]) | {"CONN_MAX_AGE": None}}
if BENCHMARK_ASYNC:
    # Threads come and go there. MariaDB has no pool in Django.
    DATABASES["default"]["CONN_MAX_AGE"] = 0
    if DATABASES["default"]["ENGINE"].endswith("postgresql") and find_spec("psycopg_pool"):
        DATABASES["default"]["OPTIONS"]["pool"] = {"min_size": 2, "max_size": 10}

CACHES = {
    "default": {
        "BACKEND": "django.core.cache.backends.redis.RedisCache",
        "LOCATION": REDIS_URL,
        "KEY_PREFIX": BENCHMARK_KEY,
    }
}
RATELIMIT_BACKEND = "redis"
RATELIMIT_REDIS = {"url": REDIS_URL}

# What the guard needs; who makes the database makes the tables of all of them.
APPS = {
    "rest": ["rest_framework"],
    "rest_throttle": ["rest_framework"],
    "rest_tracking": ["rest_framework", "rest_framework_tracking"],
    "smart_quota": ["django_smart_ratelimit"],
    "smart_rate": ["django_smart_ratelimit"],
}
GUARD_APPS = APPS.get(BENCHMARK_GUARD, ()) if BENCHMARK_GUARD else APPS["rest_tracking"] + APPS["smart_quota"]

INSTALLED_APPS = [
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.messages",
    "django.contrib.sessions",
    "usage_tracking",
    "tests.testapp",
    *(app for app in GUARD_APPS if find_spec(app)),
]

# What comes before the guard: a new project's, and one that stands for the host's own.
MIDDLEWARE = [*MIDDLEWARE[:-1], "tests.benchmarks.host.Host"]
if BENCHMARK_ASYNC:
    # Django's hop to a thread each, and hide what a guard costs that does so too.
    del MIDDLEWARE[:-1]

USAGE_TRACKING_ORGANIZATION_MODEL = "testapp.Organization"
USAGE_TRACKING = {
    "PATHS": ["/guarded/"],
    "COUNTER": os.environ.get("BENCHMARK_COUNTER", "exact"),
    "HEADERS": os.environ.get("BENCHMARK_HEADERS", "").split(),
}

ROOT_URLCONF = "tests.benchmarks.urls"
SECRET_KEY = "only for benchmarks"
ALLOWED_HOSTS = ["*"]
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
USE_TZ = True
