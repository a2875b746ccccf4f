"""The demo: real purchases become awards, through crashes and refunds, and the wallets are checked.

`purchase` reads the file, `fate` decides what will happen to each purchase, `shop` sells and refunds,
`books` watches the database, `story` puts them together, `checker` (stand-alone) judges the outcome.
"""
