"""The loyalty domain: what happens to purchases, and what they earn.

Events, pure rules and typed calls of the SQL functions. It knows only the public face of stepbase, as
any domain built on it would.
"""
