"""The WSGI application: ``gunicorn -c config/gunicorn.py wsgi:app``."""

import gc

gc.disable()  # what is imported stays: to look it through for garbage, again and again, is a tenth of the start

from app import create_app  # noqa: E402

app = create_app()
gc.enable()
