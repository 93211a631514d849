"""For Django REST framework: `pip install django-usage-tracking[drf]`."""
