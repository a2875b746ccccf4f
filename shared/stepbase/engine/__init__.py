"""The server side of the wire: takes events, starts runs, calls functions, keeps everything in Postgres.

Pure: `decide`, `effects`, `retry`, `match`, `celtext`, `starts`. Thin edges around them: `store` (the
only SQL), `caller` (HTTP to functions), `batcher`, `registry`, `executor`, `worker`, `relay`,
`listener`, `api`. `app` puts them together.
"""
