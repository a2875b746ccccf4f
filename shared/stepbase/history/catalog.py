"""What is registered: apps and functions, and how the last runs of each function went."""

import json

from stepbase.history.reads import Row, reading

# Of each function its last runs, found through the index by function: success and times of those.
LAST_RUNS = """
  cross join lateral (
    select count(*) filter (where x.ended_at is not null) as ended,
           count(*) filter (where x.status = 'Failed') as failed,
           count(*) filter (where x.status = 'Completed') as completed,
           count(*) filter (where x.ended_at is null) as live,
           max(x.created_at) as last_at,
           percentile_disc(0.5) within group (order by x.ms) filter (where x.status = 'Completed') as p50_ms,
           percentile_disc(0.95) within group (order by x.ms) filter (where x.status = 'Completed') as p95_ms
      from (
        select r.status, r.ended_at, r.created_at,
               extract(epoch from r.ended_at - r.created_at)::float8 * 1000 as ms
          from stepbase.runs r where r.function_id = f.function_id order by r.run_id desc limit {limit}
      ) x
  ) s
"""
FUNCTIONS = f"""
select f.slug, f.name, a.name as app, f.paused_at, f.version, s.*
  from stepbase.functions f join stepbase.apps a on a.app_id = f.app_id
  {LAST_RUNS.format(limit="$1")}
  where f.archived_at is null order by f.slug
"""
APPS = """
select a.name, a.url, a.sdk, a.framework, a.error, a.error_code, a.error_at, a.synced_at, a.changed_at,
       a.previous::text as previous,
       (select json_object_agg(f.slug, f.config order by f.slug)::text from stepbase.functions f
          where f.app_id = a.app_id and f.archived_at is null) as current,
       (select count(*) from stepbase.functions f
          where f.app_id = a.app_id and f.archived_at is null) as functions,
       (select count(*) from stepbase.functions f
          where f.app_id = a.app_id and f.archived_at is not null) as archived
  from stepbase.apps a where a.archived_at is null order by a.name
"""

_LAST = 200


async def list_functions(url: str) -> list[Row]:
    """Return the functions in use with their config, and how their last 200 runs went.

    Raises:
        StoreError: As `reads.reading`.
    """
    async with reading(url) as db:
        rows = [dict(row) for row in await db.fetch(FUNCTIONS, _LAST)]
        configs = await db.fetch(
            "select slug, config::text from stepbase.functions where archived_at is null"
        )
    by_slug = {row["slug"]: json.loads(row["config"]) for row in configs}
    return [{**row, "config": by_slug[row["slug"]]} for row in rows]


async def list_apps(url: str) -> list[Row]:
    """Return the apps in use: where they are served, by what, and what their last sync said and changed.

    Raises:
        StoreError: As `reads.reading`.
    """
    async with reading(url) as db:
        return [dict(row) for row in await db.fetch(APPS)]
