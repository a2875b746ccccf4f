"""The loyalty domain."""
