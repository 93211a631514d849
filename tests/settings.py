"""The Django project the tests run in; CONTRIBUTING.md says which environment variables choose its parts."""

import atexit
import os
import shutil
import tempfile
from importlib.util import find_spec
from typing import Any
from urllib.parse import unquote, urlsplit

import pymysql

if not find_spec("MySQLdb"):
    # A pure-Python driver, so that the suite needs no compiler; mysqlclient is preferred where it is installed.
    pymysql.install_as_MySQLdb()

if "DATABASE_URL" not in os.environ:
    # A file: threads and processes share it, which an in-memory database does not allow. It is handed
    # on in the environment, so that processes started by a test find the same one.
    _directory = tempfile.mkdtemp(prefix="usage_tracking_")
    atexit.register(shutil.rmtree, _directory, ignore_errors=True)
    os.environ["DATABASE_URL"] = f"sqlite:///{_directory}/db.sqlite3"


def database(url: str) -> dict[str, Any]:
    """Django's entry for `scheme://user:password@host:port/name`; SQLite takes the path of a file."""
    parts = urlsplit(url)
    name = unquote(parts.path.removeprefix("/"))
    if parts.scheme == "sqlite":
        return {
            "ENGINE": "django.db.backends.sqlite3",
            "NAME": name,
            # Django would test in memory otherwise.
            "TEST": {"NAME": f"{name}.test"},
            "OPTIONS": {
                "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL;",
                "timeout": 60,
            },
        }
    engine = {"postgres": "postgresql", "mariadb": "mysql", "mysql": "mysql"}[parts.scheme]
    return {
        "ENGINE": f"django.db.backends.{engine}",
        "NAME": name,
        "USER": unquote(parts.username or ""),
        "PASSWORD": unquote(parts.password or ""),
        "HOST": parts.hostname,
        "PORT": parts.port or "",
        "OPTIONS": {"connect_timeout": 5},
    }


DATABASES: dict[str, dict[str, Any]] = {
    "default": database(os.environ["DATABASE_URL"]) | {"CONN_MAX_AGE": 60},
    # The same database under a second name, for CHARGE_DATABASE.
    "charge": database(os.environ["DATABASE_URL"]) | {"CONN_MAX_AGE": 60, "TEST": {"MIRROR": "default"}},
}

REDIS_URL = os.environ.get("REDIS_URL", "redis://127.0.0.1:6379/0")
BROKER_URL = os.environ.get("BROKER_URL", "amqp://guest:guest@127.0.0.1:5672//")

USAGE_TRACKING_ORGANIZATION_MODEL = os.environ.get("USAGE_TRACKING_TEST_ORGANIZATION", "testapp.Organization")

# Whose ModelAdmin the organization's admin derives from.
MODEL_ADMIN = {"stock": "django.contrib.admin.ModelAdmin", "unfold": "unfold.admin.ModelAdmin"}[
    os.environ.get("USAGE_TRACKING_TEST_ADMIN", "stock")
]

INSTALLED_APPS = [
    # Before Django's, whose templates it replaces.
    *(["unfold"] if MODEL_ADMIN.startswith("unfold") else []),
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.messages",
    "django.contrib.sessions",
    "django.contrib.staticfiles",
    "usage_tracking",
    # The app of the chosen organization only: a project has one.
    f"tests.{USAGE_TRACKING_ORGANIZATION_MODEL.partition('.')[0]}",
    # The extras, as far as they are installed.
    *(
        app
        for app in (
            "rest_framework",
            "rest_framework.authtoken",
            "django_filters",
            "drf_spectacular",
            "django_celery_beat",
        )
        if find_spec(app.partition(".")[0])
    ),
]

MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    "usage_tracking.middleware.UsageTrackingMiddleware",
]

TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ],
        },
    },
]

ROOT_URLCONF = "tests.urls"
SECRET_KEY = "only for tests"
STATIC_URL = "static/"
ALLOWED_HOSTS = ["testserver"]
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
USE_TZ = True
# Not UTC, so that code which forgets the organization's own zone is caught.
TIME_ZONE = "Europe/Berlin"
# The default one is slow on purpose.
PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]

REST_FRAMEWORK = {"DEFAULT_SCHEMA_CLASS": "drf_spectacular.openapi.AutoSchema"}
SPECTACULAR_SETTINGS = {
    "TITLE": "The tests' project",
    "OAS_VERSION": "3.1.1",
    "POSTPROCESSING_HOOKS": [
        "drf_spectacular.hooks.postprocess_schema_enums",
        "usage_tracking.api.schema.add_rate_limits",
    ],
}
