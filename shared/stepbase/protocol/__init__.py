"""The wire between functions and server, as values: pure, no I/O, no clock, no randomness.

Both halves of stepbase meet here and nowhere else. Rules are Inngest's wire protocol; each module
cites the recorded exchange (`tests/vectors/…`) that settles what it does.
"""
