"""A REST gateway that answers as PostgREST does, so that supabase-py works against a bare Postgres.

It covers what functions and front ends ask of `/rest/v1`: RPCs, and reading and writing tables with
filters, under the roles, claims, statuses and error bodies of Supabase. Embedding of related
tables, aggregates, CSV and GeoJSON are refused by name rather than answered differently.

    auth        key or token of a request → role and claims      pure but for a JWKS fetch
    catalogue   what the database has: tables, SQL functions     one query each
    params      query string → filters, select list, order       pure
    sql         those → SQL text and parameters                  pure
    table, rpc  a whole request → one statement                  pure
    database    connections; runs a statement as a role
    app         HTTP in, HTTP out
"""
