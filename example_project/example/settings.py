"""A weather service that sells its API to organizations, on plans with limits. For development only."""

import os
from pathlib import Path

BASE_DIR = Path(__file__).resolve().parent.parent

DEBUG = True
SECRET_KEY = "for the example only"  # noqa: S105 - nothing here is secret
ALLOWED_HOSTS = ["127.0.0.1", "localhost", "testserver"]

# -- what usage tracking needs -----------------------------------------------------------------------------------------

USAGE_TRACKING_ORGANIZATION_MODEL = "accounts.Organization"

USAGE_TRACKING = {
    "ORGANIZATION_RESOLVER": "accounts.resolvers.organization_of",
    "METERS": {
        "api": {"label": "API requests", "unit": "requests"},
        "tokens": {"label": "Tokens of summaries", "unit": "tokens"},
    },
    "PLANS": {
        "free": {
            "limits": {"api": 100, "tokens": 2_000},
            "features": {"seats": 3},
        },
        "pro": {
            "limits": {"api": 1_000, "tokens": 50_000},
            "features": {"export": True, "seats": 25},
        },
        "enterprise": {
            "limits": {"api": None, "tokens": 1_000_000},
            "features": {"export": True, "seats": 1_000, "support": "phone"},
            "enforcement": "soft",
        },
    },
}

INSTALLED_APPS = [
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.messages",
    "django.contrib.sessions",
    "django.contrib.staticfiles",
    "rest_framework",
    "rest_framework.authtoken",
    "rest_framework_api_key",
    "usage_tracking",
    "accounts",
    "api",
    "demo",
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

REST_FRAMEWORK = {
    # The first one decides that strangers get a 401 rather than a 403.
    "DEFAULT_AUTHENTICATION_CLASSES": [
        "rest_framework.authentication.TokenAuthentication",
        "rest_framework.authentication.SessionAuthentication",
    ],
    "DEFAULT_PERMISSION_CLASSES": ["rest_framework.permissions.IsAuthenticated"],
    "DEFAULT_THROTTLE_CLASSES": ["usage_tracking.api.throttling.UsageThrottle"],
}

# -- the rest is Django's usual ----------------------------------------------------------------------------------------

ROOT_URLCONF = "example.urls"
ASGI_APPLICATION = "example.asgi.application"
WSGI_APPLICATION = "example.wsgi.application"

DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": os.environ.get("EXAMPLE_DATABASE", BASE_DIR / "db.sqlite3"),
        # No CONN_MAX_AGE: each request to the development server has a thread and would leave its connection behind.
        "OPTIONS": {
            # Readers do not wait for the writer, and the writers wait for each other.
            "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL;",
            "transaction_mode": "IMMEDIATE",
            "timeout": 20,
        },
    },
}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

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

LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    # The development server prints a line for every request: a refused one needs no second.
    "loggers": {"django.request": {"level": "ERROR"}},
}

LOGIN_URL = "rest_framework:login"
LOGIN_REDIRECT_URL = LOGOUT_REDIRECT_URL = "home"
STATIC_URL = "static/"
TIME_ZONE = "UTC"
USE_TZ = True
