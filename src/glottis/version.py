"""The version that goes into every checkpoint, run card and packed store."""

__version__ = "0.1.0"
