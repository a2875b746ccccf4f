"""Sessions on Postgres for processes of ours: the engine and the relay. It knows no SQL of theirs."""
