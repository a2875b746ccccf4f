-- Apps and functions as they were last synced, and the epoch that tells engines to reload them.

create table stepbase.apps (
  app_id uuid primary key,
  name text not null unique,
  url text not null,
  sdk text not null default '',
  framework text not null default '',
  checksum text not null,
  -- Why the last sync failed: in words, as a code (history.remedies says what to do), and since when.
  error text,
  error_code text,
  error_at timestamptz,
  synced_at timestamptz not null,
  -- The last sync that changed something, and what was registered before it: {"url", "framework",
  -- "functions": {"<slug>": config}}; null: it was the first.
  changed_at timestamptz,
  previous json,
  archived_at timestamptz
);
comment on table stepbase.apps is 'One row per app (the functions behind one serve URL), as last synced.';

create table stepbase.functions (
  function_id uuid primary key,
  app_id uuid not null,
  slug text not null unique,
  name text not null,
  config json not null,
  -- {"<event>": {"model", "schema"}}: JSON schemas of the event classes it declares; null: not told. At most
  -- 16 KiB each, else {"model", "note"} (protocol/schemas.py).
  schemas json,
  version integer not null default 1,
  paused_at timestamptz,
  archived_at timestamptz,
  -- What `lease` needs of the config: the limits of concurrency in their order, how many runs may be going
  -- on, and a throttle in microseconds (what one start costs, and how far ahead of the clock starts may run).
  limits integer[] not null default '{}',
  run_limit integer,
  throttle_every bigint,
  throttle_slack bigint
);
comment on table stepbase.functions is 'One row per function; config is what the app registered, as on the wire.';
create index functions_by_app on stepbase.functions (app_id);

-- One number, raised by every change of the functions. `ingest` compares it, so a missed
-- notification costs one more round trip and never a wrong decision.
create table stepbase.epoch (
  one boolean primary key default true constraint there_is_one_row check (one),
  n bigint not null,
  -- The server's own events (inngest/function.failed, …) that some function is started by.
  listens text[] not null default '{}',
  -- Some wait has looked back, at some time: `ingest` takes the locks that this needs.
  looks_back boolean not null default false
);
insert into stepbase.epoch (n) values (1);

alter table stepbase.apps enable row level security;
alter table stepbase.functions enable row level security;
alter table stepbase.epoch enable row level security;

-- Tells all engines that the functions are others now, and which of the server's own events start one. For
-- functions that hold the epoch row.
create or replace function stepbase._functions_changed() returns void
language plpgsql security invoker set search_path = ''
as $$
begin
  update stepbase.epoch
    set n = n + 1,
        listens = array(
          select distinct t ->> 'event'
            from stepbase.functions f
            cross join lateral json_array_elements(
              case json_typeof(f.config -> 'triggers') when 'array' then f.config -> 'triggers' end
            ) as t
            where f.archived_at is null and t ->> 'event' like 'inngest/%'
        );
  perform pg_catalog.pg_notify('stepbase', 'c');
end
$$;

-- Stores an app and exactly these functions: new ones are added, changed ones get the next version,
-- missing ones are archived. A function keeps its id when its app moves to another URL, so runs that
-- sleep survive the move. p_flows: {"limits", "runs", "every", "slack"}, for the columns. p_schemas: the
-- schemas of each function's events; null leaves what is known of them, because not every sync tells them.
-- They start nothing and are no change. What was registered before a change is kept, for people to compare.
-- Returns the app's id and whether anything changed. Locks: the epoch row first, so that two syncs of one
-- app cannot interleave.
create or replace function stepbase.register_app(
  p_app_id uuid, p_name text, p_url text, p_sdk text, p_framework text, p_checksum text,
  p_ids uuid[], p_slugs text[], p_names text[], p_configs text[], p_flows text[], p_schemas text[]
) returns table (app_id uuid, modified boolean)
language plpgsql security invoker set search_path = ''
as $$
declare
  v_now timestamptz := stepbase.now();
  v_same boolean;
  v_previous json;
begin
  perform 1 from stepbase.epoch for update;
  -- Also when they are stored as they are sent, another app may have taken one of them.
  select a.checksum = p_checksum and a.url = p_url and a.archived_at is null
         and cardinality(p_slugs) = (
           select count(*) from stepbase.functions f
             where f.app_id = a.app_id and f.archived_at is null and f.slug = any (p_slugs)
         )
    into v_same
    from stepbase.apps a where a.name = p_name;
  v_same := coalesce(v_same, false);
  if not v_same then
    select json_build_object(
             'url', a.url, 'framework', a.framework,
             'functions', (
               select coalesce(json_object_agg(f.slug, f.config order by f.slug), '{}')
                 from stepbase.functions f where f.app_id = a.app_id and f.archived_at is null
             )
           )
      into v_previous
      from stepbase.apps a where a.name = p_name;
  end if;
  insert into stepbase.apps as a (app_id, name, url, sdk, framework, checksum, synced_at, changed_at)
    values (p_app_id, p_name, p_url, p_sdk, p_framework, p_checksum, v_now, v_now)
    on conflict (name) do update
      set url = excluded.url, sdk = excluded.sdk, framework = excluded.framework,
          checksum = excluded.checksum, error = null, error_code = null, error_at = null,
          synced_at = excluded.synced_at, archived_at = null,
          changed_at = case when v_same then a.changed_at else excluded.changed_at end,
          previous = case when v_same then a.previous else v_previous end
    returning a.app_id into p_app_id;
  if v_same then
    perform stepbase._set_schemas(p_app_id, p_slugs, p_schemas);
    return query select p_app_id, false;
    return;
  end if;
  insert into stepbase.functions as f
    (function_id, app_id, slug, name, config, limits, run_limit, throttle_every, throttle_slack)
    select u.id, p_app_id, u.slug, u.name, u.config::json,
           array(select json_array_elements_text(u.flow::json -> 'limits')::integer),
           (u.flow::json ->> 'runs')::integer, (u.flow::json ->> 'every')::bigint,
           (u.flow::json ->> 'slack')::bigint
      from unnest(p_ids, p_slugs, p_names, p_configs, p_flows) as u (id, slug, name, config, flow)
    on conflict (slug) do update
      set app_id = excluded.app_id, name = excluded.name, config = excluded.config,
          limits = excluded.limits, run_limit = excluded.run_limit, throttle_every = excluded.throttle_every,
          throttle_slack = excluded.throttle_slack,
          version = f.version + (f.config::text is distinct from excluded.config::text)::int,
          archived_at = null;
  update stepbase.functions f
    set archived_at = v_now
    where f.app_id = p_app_id and f.archived_at is null and f.slug <> all (p_slugs);
  perform stepbase._set_schemas(p_app_id, p_slugs, p_schemas);
  perform stepbase._set_crons(p_app_id);
  perform stepbase._functions_changed();
  return query select p_app_id, true;
end
$$;

-- Keeps the schemas of the events that functions declare, each as JSON text; null arrays change nothing. For
-- register_app, which holds the epoch row. Locks: the rows of functions whose schemas are others now.
create or replace function stepbase._set_schemas(p_app_id uuid, p_slugs text[], p_schemas text[]) returns void
language sql security invoker set search_path = ''
as $$
  update stepbase.functions f
    set schemas = u.schemas::json
    from unnest(p_slugs, p_schemas) as u (slug, schemas)
    where p_schemas is not null and f.app_id = p_app_id and f.slug = u.slug
      and f.schemas::text is distinct from u.schemas
$$;

-- Notes why a sync failed, of the apps of a name or at a URL that are known; until the next one that works.
-- The same error twice keeps its time. Returns how many were noted. Locks: the rows of those apps.
create or replace function stepbase.note_sync_error(p_name text, p_url text, p_code text, p_error text)
returns integer
language plpgsql security invoker set search_path = ''
as $$
declare
  v_count integer;
begin
  update stepbase.apps a
    set error = left(p_error, 2000), error_code = p_code, error_at = stepbase.now()
    where (a.name = p_name or a.url = p_url) and a.archived_at is null
      and (a.error is null or a.error <> left(p_error, 2000));
  get diagnostics v_count = row_count;
  return v_count;
end
$$;

-- Archives apps with all their functions: they start nothing more until they are registered again; runs that
-- go on are left alone. Returns the names of those that were not archived yet. Locks: the epoch row first, then
-- rows of crons.
create or replace function stepbase.remove_apps(p_names text[]) returns setof text
language plpgsql security invoker set search_path = ''
as $$
declare
  v_now timestamptz := stepbase.now();
  v_app record;
  v_is_changed boolean := false;
begin
  perform 1 from stepbase.epoch for update;
  for v_app in
    update stepbase.apps a set archived_at = v_now
      where a.name = any (p_names) and a.archived_at is null
      returning a.app_id, a.name
  loop
    update stepbase.functions f set archived_at = v_now
      where f.app_id = v_app.app_id and f.archived_at is null;
    perform stepbase._set_crons(v_app.app_id);
    v_is_changed := true;
    return next v_app.name;
  end loop;
  if v_is_changed then
    perform stepbase._functions_changed();
  end if;
end
$$;

-- Every app that is not archived, by name.
create or replace function stepbase.list_apps()
returns table (
  app_id uuid, name text, url text, sdk text, framework text, synced_at timestamptz, functions bigint
)
language sql stable security invoker set search_path = ''
as $$
  select a.app_id, a.name, a.url, a.sdk, a.framework, a.synced_at,
         (select count(*) from stepbase.functions f where f.app_id = a.app_id and f.archived_at is null)
    from stepbase.apps a where a.archived_at is null order by a.name
$$;

-- Everything an engine caches: the epoch and all functions, archived ones too (their runs go on).
create or replace function stepbase.load_functions()
returns table (
  epoch bigint, function_id uuid, app_id uuid, app_name text, app_url text, slug text, name text,
  config text, version integer, is_paused boolean, is_archived boolean
)
language sql stable security invoker set search_path = ''
as $$
  select e.n, f.function_id, f.app_id, a.name, a.url, f.slug, f.name, f.config::text, f.version,
         f.paused_at is not null, f.archived_at is not null
    from stepbase.epoch e
    left join (stepbase.functions f join stepbase.apps a on a.app_id = f.app_id) on true
$$;
