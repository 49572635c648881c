"""What Django needs of the project's settings; sign-in needs none of its own."""

import os
from urllib.parse import urlsplit

import contoso

ALLOWED_HOSTS = [urlsplit(os.environ["BASE_URL"]).hostname]
SECRET_KEY = os.environ["SECRET_KEY"]
ROOT_URLCONF = "urls"
MIDDLEWARE = ["urls.protect", "django.middleware.common.CommonMiddleware", "django.middleware.csrf.CsrfViewMiddleware"]
CSRF_COOKIE_SECURE = True
USE_TZ = True
STATIC_URL, STATIC_ROOT = "/static/", contoso.STATIC
LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"short": {"format": "%(name)s: %(message)s"}},
    "handlers": {"console": {"class": "logging.StreamHandler", "formatter": "short"}},
    "root": {"handlers": ["console"], "level": "WARNING"},
}
