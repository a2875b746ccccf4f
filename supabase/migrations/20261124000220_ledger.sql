-- The ledger: calls of SQL functions that happen exactly once. (And writes to tables: the next file.)
--
-- A step calls `public.stepbase_call`, which in one transaction takes the call's key in the ledger, calls
-- the function, and stores the result beside whatever the function wrote. So a retry, a crash after the
-- commit, a second delivery and a process thought dead all get the first result. Of two at once, the
-- second waits on the unique key: for the first one's result if it commits, or to go ahead itself if it
-- does not. What is rolled back leaves no key.
--
-- The key is the business key, if there is one, else run and step. The same key with other arguments, as
-- another user, or for another function, is an error and never a silent answer: beside the key stands one
-- hash per argument. Two arguments are the same when they are the same JSON value: the order of keys, white
-- space and the spelling of a number (1, 1.0, 1e0) do not count; "1" and 1 are different.
--
-- Functions marked STABLE or IMMUTABLE are called without the ledger: a read is not an effect.
-- What a function does outside of the database (pg_net, dblink) is not covered.

create table stepbase.ledger (
  -- 'key:' (a call) or 'table:' (a write) and the business key, or 'run:', the run, ':' and the step.
  key text collate "C" primary key,
  run_id text,
  step text,
  -- Schema and name; of a write the verb before them, 'insert into public.orders'. Not the argument
  -- types: a parameter with a default may be added later.
  fn text not null,
  -- By parameter name; '(as_user)' is the user's id.
  arg_hashes jsonb not null,
  -- As it was answered. Null while the call runs, which nobody else can see, and after ledger_prune.
  result json,
  created_at timestamptz not null
  -- Each row is written twice, key and then result: room for the second on the same page.
) with (fillfactor = 60);

-- ledger_prune: the oldest first.
create index ledger_by_age on stepbase.ledger using brin (created_at);

comment on table stepbase.ledger is
  'Calls and writes that were made, by key, with their results: what makes them happen once.';

create table stepbase.callable_schemas (
  schema_name text primary key
);

insert into stepbase.callable_schemas values ('public');

comment on table stepbase.callable_schemas is 'Schemas whose functions steps may call, and whose tables they may write.';

alter table stepbase.ledger enable row level security;
alter table stepbase.callable_schemas enable row level security;

-- A function that fits a call, with what is needed to make it.
create type stepbase.callable as (
  oid oid,
  schema_name text,
  -- Schema and name, quoted as in SQL.
  qualified text,
  kind "char",
  is_read boolean,
  is_variadic boolean,
  takes_pseudo_type boolean,
  returns oid,
  returns_set boolean,
  -- Names of the columns it returns, where it names them.
  out_names text[],
  -- What goes between the parentheses, 'p_a := a.p_a, …', and the columns of a, 'p_a uuid, …'; null for
  -- none. A function that takes all arguments as one json gets '$1::json'.
  given text,
  columns text
);

-- The functions that p_function ('name' or 'schema.name') and these arguments can mean, chosen as the REST
-- API does: by the names of the arguments, or else those with a single unnamed json parameter. An array and
-- not a set, and one statement: this is the dearest part of a call.
create function stepbase.fitting_functions(p_function text, p_args jsonb)
  returns stepbase.callable[]
  language plpgsql
  stable
  set search_path = ''
  as $$
declare
  v_schema constant text := substring(p_function from '^(.*)\.');
  v_name constant text := regexp_replace(p_function, '^.*\.', '');
  v_fitting stepbase.callable[];
begin
  v_fitting := array(
    select row(
      p.oid, s.schema_name, format('%I.%I', s.schema_name, p.proname),
      p.prokind, p.provolatile in ('s', 'i'), p.provariadic <> 0,
      exists (select from pg_type as t where t.oid = any (p.proargtypes::oid[]) and t.typtype = 'p'),
      p.prorettype, p.proretset, a.out_names, a.given, a.columns
    )::stepbase.callable
    from pg_proc as p
    join stepbase.callable_schemas as s on to_regnamespace(quote_ident(s.schema_name)) = p.pronamespace
    cross join lateral (
      select
        coalesce(array_agg(coalesce(u.name, '')) filter (where u.is_in), '{}') as names,
        array_agg(u.name) filter (where u.mode in ('o', 'b', 't')) as out_names,
        string_agg(format('%I := a.%1$I', u.name), ', ') filter (where u.is_given) as given,
        string_agg(format('%I %s', u.name, format_type(u.type, -1)), ', ')
          filter (where u.is_given) as columns
      from (
        select u.name, u.type, u.mode, i.is_in, i.is_in and p_args ? u.name as is_given
        from unnest(
          coalesce(p.proallargtypes, p.proargtypes::oid[]), p.proargnames, p.proargmodes::text[]
        ) as u(type, name, mode)
        cross join lateral (select coalesce(u.mode in ('i', 'b', 'v'), true) as is_in) as i
      ) as u
    ) as a
    where p.proname = v_name
      and (v_schema is null or s.schema_name = v_schema)
      -- Nothing is given that it does not take.
      and p_args - a.names = '{}'
      -- Of the parameters, the last pronargdefaults may be left out.
      and p_args ?& a.names[:p.pronargs - p.pronargdefaults]
      and '' <> all (a.names));
  if v_fitting <> '{}' then
    return v_fitting;
  end if;

  return array(
    select row(
      p.oid, s.schema_name, format('%I.%I', s.schema_name, p.proname),
      p.prokind, p.provolatile in ('s', 'i'), false, false,
      p.prorettype, p.proretset, nullif(array(
        select u.name
        from unnest(p.proargnames, p.proargmodes::text[]) as u(name, mode)
        where u.mode in ('o', 't')
      ), '{}'),
      '$1::' || p.proargtypes[0]::regtype, null
    )::stepbase.callable
    from pg_proc as p
    join stepbase.callable_schemas as s on to_regnamespace(quote_ident(s.schema_name)) = p.pronamespace
    where p.proname = v_name
      and (v_schema is null or s.schema_name = v_schema)
      and p.pronargs = 1
      and coalesce(p.proargnames[1], '') = ''
      and p.proargtypes[0] in ('json'::regtype, 'jsonb'::regtype));
end
$$;

-- Says that no function fits, and what there is instead. Always raises: SB002 when the schema is not open
-- to steps, else 42883.
create function stepbase.refuse_call(p_function text, p_args jsonb) returns void
  language plpgsql
  stable
  set search_path = ''
  as $$
declare
  v_schema constant text := substring(p_function from '^(.*)\.');
begin
  if v_schema is not null
    and not exists (select from stepbase.callable_schemas as s where s.schema_name = v_schema)
  then
    raise exception 'SQL function % cannot be called by a step: its schema is not open to steps', p_function
      using errcode = 'SB002',
        hint = format('Open it: insert into stepbase.callable_schemas values (%L).', v_schema);
  end if;
  raise exception 'SQL function %(%) was not found', p_function,
    array_to_string(array(select jsonb_object_keys(p_args)), ', ')
    using errcode = '42883',
      detail = (
        select coalesce(
          'There is ' || string_agg(
            format('%s(%s)', p.oid::regproc, pg_get_function_arguments(p.oid)), '; ' order by p.oid),
          'There is no function of that name in the schemas open to steps.')
        from pg_proc as p
        join stepbase.callable_schemas as s on s.schema_name::regnamespace = p.pronamespace
        where p.proname = regexp_replace(p_function, '^.*\.', '')
      ),
      hint = 'Is the migration that makes it applied? Are the arguments named as its parameters are?';
end
$$;

-- The one function that a call means. Raises SB002 (it cannot be called by a step, or not exactly once),
-- 42883 (no such function, or not with these arguments) and 42725 (several).
create function stepbase.resolve_call(p_function text, p_args jsonb) returns stepbase.callable
  language plpgsql
  stable
  set search_path = ''
  as $$
declare
  v_fitting constant stepbase.callable[] := stepbase.fitting_functions(p_function, p_args);
  v_callable constant stepbase.callable := v_fitting[1];
  v_reason text;
begin
  if v_callable.oid is null then
    perform stepbase.refuse_call(p_function, p_args);
  elsif cardinality(v_fitting) > 1 then
    raise exception 'SQL function % is overloaded, and these arguments fit several: %',
      p_function, (select string_agg(f.oid::regprocedure::text, ', ' order by f.oid) from unnest(v_fitting) as f)
      using errcode = '42725', hint = 'Name its schema, or one more argument.';
  end if;

  v_reason := case
    when starts_with(v_callable.qualified, 'public.stepbase_') then 'is one of stepbase''s own'
    when v_callable.kind = 'p' then 'is a procedure, which may commit half-way; make it a function'
    when v_callable.kind <> 'f' then 'is an aggregate or a window function'
    when v_callable.is_variadic then 'is variadic; give it one array parameter instead'
    when v_callable.takes_pseudo_type then 'takes any type, and JSON cannot say which one is meant'
    when v_callable.returns in ('trigger'::regtype, 'event_trigger'::regtype) then 'is a trigger function'
    when v_callable.returns = 'record'::regtype and v_callable.returns_set and v_callable.out_names is null
      then 'returns rows without named columns; declare it as returns table (…)'
  end;
  if v_reason is not null then
    raise exception 'SQL function % cannot be called by a step: it %', v_callable.qualified, v_reason
      using errcode = 'SB002';
  end if;
  return v_callable;
end
$$;

-- The statement that makes a call with the arguments in $1 (json) and gives its result as the text of one
-- JSON value: a scalar bare, a row as an object, a set as an array, void as null. As the REST API gives it,
-- but that a function which returns a null row gives null, not an object full of nulls.
create function stepbase.call_statement(p_callable stepbase.callable) returns text
  language plpgsql
  immutable
  set search_path = ''
  as $$
declare
  v_call constant text := p_callable.qualified || '(' || coalesce(p_callable.given, '') || ')';
  v_from constant text := 'pg_catalog.json_to_record($1) as a(' || p_callable.columns || ')';
  v_value text := 'r';
begin
  if not p_callable.returns_set
    and p_callable.out_names is null
    and p_callable.returns <> 'pg_catalog.void'::regtype
  then
    return concat_ws(' from ', 'select pg_catalog.to_json(' || v_call || ')::text', v_from);
  end if;

  if p_callable.returns = 'pg_catalog.void'::regtype then
    v_value := '''null''';
  else
    if cardinality(p_callable.out_names) = 1 then
      -- A single named column is still a column.
      v_value := format('pg_catalog.json_build_object(%L, r.%1$I)', p_callable.out_names[1]);
    end if;
    v_value := case
      when p_callable.returns_set then format('coalesce(pg_catalog.json_agg(%s), ''[]'')', v_value)
      else format('pg_catalog.to_json(%s)', v_value)
    end;
  end if;
  return format('select (%s)::text from %s',
    v_value, concat_ws(' cross join lateral ', v_from, v_call || ' as r'));
end
$$;

-- Runs a statement of call_statement or write_statement with the search_path that the REST API would give it, p_schema before
-- the usual ones, as the user whose claims are given, if any: role authenticated, so that row level
-- security applies. All is put back afterwards, also by an error, which rolls back what was set.
-- Raises 22023 for claims that are not a user's, and whatever the statement raises.
create function stepbase.run_call(p_statement text, p_args json, p_schema text, p_as_user jsonb)
  returns text
  language plpgsql
  set search_path = ''
  as $$
declare
  v_role text;
  v_claims text;
  v_result text;
begin
  if p_as_user is not null then
    if coalesce(p_as_user ->> 'sub', '') = ''
      or coalesce(p_as_user ->> 'role', 'authenticated') <> 'authenticated'
    then
      raise exception 'as_user needs the claims of a user: sub, and role authenticated or none'
        using errcode = '22023';
    end if;
    v_role := current_setting('role');
    v_claims := coalesce(current_setting('request.jwt.claims', true), '');
    perform set_config(
      'request.jwt.claims', (p_as_user || '{"role": "authenticated"}')::text, true);
    perform set_config('role', 'authenticated', true);
  end if;

  perform set_config('search_path', format('%I, public, extensions', p_schema), true);
  execute p_statement into v_result using p_args;
  perform set_config('search_path', '', true);

  if p_as_user is not null then
    perform set_config('role', v_role, true);
    perform set_config('request.jwt.claims', v_claims, true);
  end if;
  return coalesce(v_result, 'null');
end
$$;

-- One hash per argument, as text; the user's id counts as one. Equal JSON values have equal hashes.
create function stepbase.hash_args(p_args jsonb, p_as_user jsonb) returns jsonb
  language plpgsql
  immutable
  set search_path = ''
  as $$
begin
  return (
    select coalesce(jsonb_object_agg(key, to_hex(jsonb_hash_extended(value, 0))), '{}')
    from jsonb_each(
      p_args || case
        when p_as_user is null then '{}'
        else jsonb_build_object('(as_user)', p_as_user -> 'sub')
      end)
  );
end
$$;

-- Takes a key for a call or a write, so that the caller may make it. Returns null when the key is new, else
-- the result stored under it. Waits while another transaction has it. Raises SB001 when it stands for
-- another one, SB005 when its result is no longer kept.
create function stepbase.ledger_take(
  p_key text,
  p_run_id text,
  p_step text,
  p_fn text,
  p_hashes jsonb
) returns text
  language plpgsql
  set search_path = ''
  as $$
declare
  v_entry stepbase.ledger;
  v_different text;
begin
  loop
    insert into stepbase.ledger (key, run_id, step, fn, arg_hashes, created_at)
    values (p_key, p_run_id, p_step, p_fn, p_hashes, stepbase.now())
    on conflict (key) do nothing;
    if found then
      return null;
    end if;
    select * into v_entry from stepbase.ledger where key = p_key;
    -- Not there: pruned just now, so it is new again.
    exit when found;
  end loop;

  if v_entry.fn <> p_fn then
    raise exception 'ledger key "%" stands for %, and cannot be used for %',
      p_key, v_entry.fn, p_fn
      using errcode = 'SB001', hint = 'Give each effect a key of its own.';
  end if;
  select string_agg(coalesce(a.key, b.key), ', ' order by coalesce(a.key, b.key))
  into v_different
  from jsonb_each(v_entry.arg_hashes) as a
  full join jsonb_each(p_hashes) as b on a.key = b.key
  where a.value is distinct from b.value;
  if v_different is not null then
    raise exception 'ledger key "%" stands for % with another %', p_key, p_fn, v_different
      using errcode = 'SB001',
        hint = 'That was done and is not repeated. Another effect needs another key.';
  elsif v_entry.result is null then
    raise exception 'ledger key "%": % was done at %, its result is no longer kept',
      p_key, p_fn, v_entry.created_at
      using errcode = 'SB005';
  end if;
  return v_entry.result::text;
end
$$;

-- Runs a statement (see run_call) once per key, and returns the text of {"data": <its result>, "replayed":
-- <whether it is an earlier one's>}. Text, so that big integers and decimals arrive as they are.
-- p_fn and p_hashes are what the key stands for. p_key is null for a read, which needs none. p_timeout_ms
-- is how long it may wait for locks, the key's included (55P03); PostgreSQL cannot shorten the statement
-- timeout of a statement that already runs.
-- Raises SB001 and SB005 as ledger_take, SB003 (result over 4 MiB), and whatever the statement raises;
-- then nothing is kept.
-- Locks the ledger's row for the key first, then whatever the statement locks.
create function stepbase.run_once(
  p_key text,
  p_run_id text,
  p_step text,
  p_fn text,
  p_hashes jsonb,
  p_statement text,
  p_args json,
  p_schema text,
  p_as_user jsonb,
  p_timeout_ms int
) returns text
  language plpgsql
  set search_path = ''
  as $$
declare
  v_lock_timeout text;
  v_result text;
  v_replayed boolean;
begin
  if p_timeout_ms is not null then
    v_lock_timeout := current_setting('lock_timeout');
    perform set_config('lock_timeout', p_timeout_ms::text, true);
  end if;
  if p_key is not null then
    v_result := stepbase.ledger_take(p_key, p_run_id, p_step, p_fn, p_hashes);
  end if;
  v_replayed := v_result is not null;

  if not v_replayed then
    v_result := stepbase.run_call(p_statement, p_args, p_schema, p_as_user);
    if octet_length(v_result) > 4194304 then
      raise exception 'the result of % has % bytes, at most 4194304 (4 MiB) are allowed',
        p_fn, octet_length(v_result)
        using errcode = 'SB003',
          hint = 'Return an id or a page, and read the rest where it is needed.';
    end if;
    if p_key is not null then
      update stepbase.ledger set result = v_result::json where key = p_key;
    end if;
  end if;
  if p_timeout_ms is not null then
    perform set_config('lock_timeout', v_lock_timeout, true);
  end if;
  return format('{"data": %s, "replayed": %s}', v_result, v_replayed::text);
end
$$;

-- The ledger's key of a step that has an effect: a business key behind p_kind, or run and step.
-- Raises SB004 when there is neither, or it is too long.
create function stepbase.ledger_key(p_kind text, p_key text, p_run_id text, p_step text, p_fn text)
  returns text
  language plpgsql
  immutable
  set search_path = ''
  as $$
declare
  v_key constant text := coalesce(p_kind || ':' || p_key, 'run:' || p_run_id || ':' || p_step);
begin
  if v_key is null or p_key = '' or length(v_key) > 1000 then
    raise exception '% needs a key of at most 1000 characters: p_key, or p_run_id and p_step', p_fn
      using errcode = 'SB004', hint = 'If it is a function that only reads, declare it STABLE.';
  end if;
  return v_key;
end
$$;

-- Calls an SQL function by name with JSON arguments, once per key, and answers as run_once. The key is
-- p_key, or p_run_id and p_step; a function that is not STABLE or IMMUTABLE needs one. p_as_user are the
-- claims of the user it runs as, p_timeout_ms is how long it may wait for locks.
-- Raises SB001 (the key stands for another call), SB002 (not callable), SB003 (result over 4 MiB), SB004
-- (no key), SB005 (result pruned), 22023 (arguments are no object), 42883 (no such function), 42501 (no
-- grant), and whatever the function raises; then nothing is kept.
create function public.stepbase_call(
  p_function text,
  p_args json default '{}',
  p_run_id text default null,
  p_step text default null,
  p_key text default null,
  p_as_user json default null,
  p_timeout_ms int default null
) returns text
  language plpgsql
  set search_path = ''
  -- PostgREST applies this to the whole request, in place of the 8 seconds of its login role.
  set statement_timeout = '60s'
  as $$
declare
  v_args constant jsonb := coalesce(p_args::jsonb, '{}');
  v_as_user constant jsonb := nullif(p_as_user::jsonb, 'null');
  v_callable stepbase.callable;
  v_key text;
begin
  if jsonb_typeof(v_args) <> 'object' then
    raise exception 'the arguments of % must be a JSON object by parameter name, not %',
      p_function, jsonb_typeof(v_args)
      using errcode = '22023';
  end if;
  v_callable := stepbase.resolve_call(p_function, v_args);
  if not v_callable.is_read then
    v_key := stepbase.ledger_key('key', p_key, p_run_id, p_step, v_callable.qualified);
  end if;
  return stepbase.run_once(
    v_key, p_run_id, p_step, v_callable.qualified,
    case when v_key is not null then stepbase.hash_args(v_args, v_as_user) end,
    stepbase.call_statement(v_callable), coalesce(p_args, '{}'), v_callable.schema_name,
    v_as_user, p_timeout_ms);
end
$$;

comment on function public.stepbase_call is
  'Calls an SQL function once per key and keeps its result; for durable steps. service_role only.';

-- Forgets results older than p_results_before, so that those keys raise SB005 from then on, and keys older
-- than p_keys_before altogether, but nothing of a run that has not ended. At most p_limit of each, the
-- oldest first; returns how many rows it touched.
create function stepbase.ledger_prune(
  p_results_before timestamptz,
  p_keys_before timestamptz,
  p_limit int default 1000
) returns int
  language plpgsql
  set search_path = ''
  as $$
declare
  v_results int;
  v_keys int;
begin
  with old as (
    select l.key
    from stepbase.ledger as l
    where l.created_at < p_keys_before
      and not exists (
        select from stepbase.runs as r where r.run_id = l.run_id and r.ended_at is null)
    limit p_limit
    for update skip locked
  )
  delete from stepbase.ledger as l using old where l.key = old.key;
  get diagnostics v_keys = row_count;

  with old as (
    select l.key
    from stepbase.ledger as l
    where l.created_at < p_results_before
      and l.result is not null
      and not exists (
        select from stepbase.runs as r where r.run_id = l.run_id and r.ended_at is null)
    limit p_limit
    for update skip locked
  )
  update stepbase.ledger as l set result = null from old where l.key = old.key;
  get diagnostics v_results = row_count;
  return v_keys + v_results;
end
$$;
