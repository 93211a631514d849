"""The app of organizations and their members."""

from django.apps import AppConfig


class AccountsConfig(AppConfig):
    """`accounts` in INSTALLED_APPS."""

    name = "accounts"

    def ready(self) -> None:
        """Connect the receivers."""
        from accounts import receivers  # noqa: F401, PLC0415 - importing it is what connects them
