"""What people at a terminal ask: the views, an engine's API, and how a set-up is from end to end."""
