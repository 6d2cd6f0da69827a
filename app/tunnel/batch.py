"""The gateway's batches are the application's."""

from app.batch import Batcher

__all__ = ["Batcher"]
