"""The record of runs and events for people at a terminal: reads the views, writes nothing but in `forget`."""
