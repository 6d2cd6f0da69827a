"""The reference device agent of EdgeFlow Cloud and its fleet simulator; imports nothing of the platform."""

__version__ = "2.0.0"
