"""Samovar: keeps `claude` processes warm and serves them over gRPC."""

__version__ = "0.1.0"
