"""The stack on one machine: Postgres, migrations, REST gateway, function host, supervisor."""
