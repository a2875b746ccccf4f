-- Row triggers: events from changes of rows.
--
--   select stepbase.track(
--     'purchases', 'currency/award.requested',
--     $$ new.status = 'paid' $$,
--     'user_id, merchant_id, source_id=id, amount=amount_cents');
--
-- makes a trigger function for that table and event, and up to two triggers: one for inserted rows
-- that meet the condition, one for updated rows that have come to meet it (old did not, or it was
-- null). The conditions are WHEN clauses, so rows that do not qualify cost no call. Each trigger
-- function is generated once, static and readable (\sf stepbase.emit_…): no dynamic SQL per row.
--
-- They are SECURITY DEFINER: whoever may write the row emits the event, and needs no grant on
-- anything here. They can be given nothing but the row, their search_path is empty, and only a
-- trigger can call them. What they do is what stepbase.enqueue_event does, in place.

create table stepbase.row_triggers (
  -- By identity, not by name: a renamed table keeps its row triggers.
  table_id regclass not null,
  event text not null,
  -- As PostgreSQL understood it, with all names qualified; null: every inserted row.
  condition text,
  -- As asked for; null: the primary key.
  columns text,
  -- The trigger function is stepbase.emit_<name>, the triggers stepbase_<name>_insert and _update.
  name text not null unique,
  created_at timestamptz not null,
  primary key (table_id, event)
);

comment on table stepbase.row_triggers is
  'Which rows emit which event: written by track and untrack, read by nobody at run time.';

alter table stepbase.row_triggers enable row level security;

-- The SQL expression for the event's data: p_columns ('a, b=c') as a JSON object of the new row.
-- '' or null means the primary key, '*' the whole row. For track. Raises SB011 for columns that are
-- not there, named twice, or for '*' in schema auth, whose rows hold password hashes and tokens.
create function stepbase.row_trigger_data(p_table regclass, p_columns text) returns text
  language plpgsql
  stable
  set search_path = ''
  as $$
declare
  v_columns text := btrim(coalesce(p_columns, ''));
  v_item text[];
  v_key text;
  v_column text;
  v_keys text[] := array[]::text[];
  v_pairs text[] := array[]::text[];
begin
  if v_columns = '*' then
    if (select relnamespace from pg_class where oid = p_table) = to_regnamespace('auth') then
      raise exception 'row trigger on %: ''*'' is refused in schema auth', p_table
        using errcode = 'SB011',
          hint = 'Its rows hold password hashes and tokens. Name the columns the event needs.';
    end if;
    return 'to_json(new)';
  end if;

  if v_columns = '' then
    select string_agg(attname, ', ' order by attnum)
    into v_columns
    from pg_index
    join pg_attribute on attrelid = indrelid and attnum = any (indkey)
    where indrelid = p_table and indisprimary;
    if v_columns is null then
      raise exception 'row trigger on %: the table has no primary key to send', p_table
        using errcode = 'SB011', hint = 'Name the columns, or ask for the whole row with ''*''.';
    end if;
  end if;

  for v_item in
    select regexp_match(item, '^\s*([^=]*?)\s*(?:=\s*(.*?)\s*)?$')
    from unnest(string_to_array(v_columns, ',')) as item
  loop
    v_key := v_item[1];
    v_column := coalesce(v_item[2], v_key);
    if not exists (
      select from pg_attribute
      where attrelid = p_table and attname = v_column and attnum > 0 and not attisdropped
    ) then
      raise exception 'row trigger on %: there is no column "%"', p_table, v_column
        using errcode = 'SB011',
          detail = 'Asked for: ' || v_columns,
          hint = (
            select 'Its columns are: ' || string_agg(attname, ', ' order by attnum)
            from pg_attribute
            where attrelid = p_table and attnum > 0 and not attisdropped
          );
    elsif v_key = '' or v_key = any (v_keys) then
      raise exception 'row trigger on %: "%" is named twice or empty', p_table, v_key
        using errcode = 'SB011', detail = 'Asked for: ' || v_columns;
    end if;
    v_keys := v_keys || v_key;
    v_pairs := v_pairs || format('%L, new.%I', v_key, v_column);
  end loop;
  if cardinality(v_keys) > 50 then
    raise exception 'row trigger on %: % columns are asked for, at most 50 can be', p_table,
      cardinality(v_keys)
      using errcode = 'SB011', hint = 'Ask for the whole row with ''*''.';
  end if;
  return format('json_build_object(%s)', array_to_string(v_pairs, ', '));
end
$$;

-- The same condition about the old row: p_condition with `new.` turned into `old.`. For track, which
-- passes the text as PostgreSQL prints it: unquoted names in lower case, every string in '…', every
-- other name in "…", so what lies outside of quotes can be told apart and is never a string.
create function stepbase.about_old(p_condition text) returns text
  language sql
  immutable
  set search_path = ''
  as $$
    select string_agg(
      case
        when left(piece[1], 1) in ('''', '"') then piece[1]
        else regexp_replace(piece[1], '\mnew\.', 'old.', 'g')
      end,
      '' order by n)
    from regexp_matches(p_condition, $r$'(?:[^']|'')*'|"(?:[^"]|"")*"|[^'"]+$r$, 'g')
      with ordinality as m(piece, n)
  $$;

-- Makes the two triggers of a row trigger. For track. p_when null: inserted rows only, all of them.
-- Returns the condition as PostgreSQL understood it. Raises SB011 when it did not.
-- Locks the table against writers until the transaction ends.
create function stepbase.make_row_triggers(p_table regclass, p_name text, p_when text) returns text
  language plpgsql
  set search_path = ''
  as $$
declare
  v_call constant text := format('execute function stepbase.%I()', 'emit_' || p_name);
  v_insert constant text := 'stepbase_' || p_name || '_insert';
  v_head constant text := format('create trigger %I after insert on %s for each row', v_insert, p_table);
  v_condition text;
begin
  if p_when is null then
    execute v_head || ' ' || v_call;
    return null;
  end if;

  -- The condition is the user's: operators and functions may live where an application's usually do.
  perform set_config('search_path', 'public, extensions', true);
  execute format(E'%s when (%s\n) %s', v_head, p_when, v_call);
  perform set_config('search_path', '', true);

  select pg_get_triggerdef(oid)
  into strict v_condition
  from pg_trigger
  where tgrelid = p_table and tgname = v_insert;
  v_condition := substr(v_condition, length(v_head || ' when (') + 1);
  v_condition := left(v_condition, -length(') ' || v_call));
  execute format(
    'create trigger %I after update on %s for each row when (%s and (%s) is not true) %s',
    'stepbase_' || p_name || '_update', p_table, v_condition, stepbase.about_old(v_condition), v_call);
  return v_condition;
exception
  when insufficient_privilege then
    raise;
  when syntax_error_or_access_rule_violation or feature_not_supported or data_exception then
    raise exception 'row trigger on %: the condition (%) cannot be used: %', p_table, p_when, sqlerrm
      using errcode = 'SB011',
        hint = 'It says of the new row when the event is due, as in new.status = ''paid''; the event'
          ' fires when that becomes true. It has no subqueries and does not know the old row.';
end
$$;

-- Makes rows of a table emit an event: when they are inserted, or updated, so that p_when becomes
-- true. p_columns says what the event's data holds: 'a, b=c' is {"a": a, "b": c}; null is the primary
-- key alone; '*' is the whole row, whatever columns it will have (refused in schema auth). Everything
-- is checked now. Called again for the same table and event it replaces what was there. Returns the
-- name of the row trigger. Raises SB010 and SB011. For the owner of the table and of this schema.
-- A row moved to another partition counts as inserted. Locks the table against writers.
create function stepbase.track(
  p_table regclass,
  p_event text,
  p_when text default null,
  p_columns text default null
) returns text
  language plpgsql
  set search_path = ''
  as $$
declare
  v_slug constant text := btrim(left(regexp_replace(lower(p_event), '[^a-z0-9]+', '_', 'g'), 30), '_');
  v_salt int := 0;
  v_name text;
  v_data text;
begin
  perform stepbase.check_event_name(p_event);
  if not exists (
    select from pg_class
    where oid = p_table
      and relkind in ('r', 'p')
      and relpersistence <> 't'
      and relnamespace <> 'stepbase'::regnamespace
  ) then
    raise exception 'row trigger on %: only an ordinary table can have one', p_table
      using errcode = 'SB011',
        hint = 'Views, foreign and temporary tables, and stepbase''s own tables cannot.';
  end if;
  v_data := stepbase.row_trigger_data(p_table, p_columns);

  perform stepbase.untrack(p_table, p_event);
  -- The name is the same in every database of a project, whatever the order of its migrations.
  loop
    v_name := v_slug || '_' || left(md5(format('%s %s %s', p_table, p_event, v_salt)), 8);
    exit when not exists (select from stepbase.row_triggers where name = v_name);
    v_salt := v_salt + 1;
  end loop;

  execute format(
    $f$
      create function stepbase.%1$I() returns trigger
        language plpgsql
        -- Whoever may write the row emits the event; see stepbase.track.
        security definer
        set search_path = ''
        as $body$
      declare
        v_now constant timestamptz := stepbase.now();
        v_ms constant bigint := floor(date_part('epoch', v_now) * 1000)::bigint;
        v_hex constant text := lpad(to_hex(v_ms), 12, '0');
        v_id constant text := left(v_hex, 8) || '-' || right(v_hex, 4) || '-7'
          || substr(gen_random_uuid()::text, 16);
        v_payload json;
      begin
        -- Only the reading of the row is guarded: a block that writes would take a transaction id
        -- for every row.
        begin
          v_payload := json_build_object('name', %2$L, 'data', %3$s, 'id', v_id, 'ts', v_ms);
        exception when others then
          raise exception 'row trigger on %%, event "%%": %%', tg_relid::regclass, %2$L, sqlerrm
            using errcode = 'SB012',
              detail = 'SQLSTATE ' || sqlstate,
              hint = 'If a column was renamed or dropped, call stepbase.track again.';
        end;
        if pg_column_size(v_payload) > 3145728 then
          raise exception
            'row trigger on %%: event "%%" has %% bytes, at most 3145728 (3 MiB) are allowed',
            tg_relid::regclass, %2$L, pg_column_size(v_payload)
            using errcode = 'SB010',
              hint = 'Track fewer columns, and let the function read the rest.';
        end if;
        insert into stepbase.outbox (id, name, payload, created_at, due_at)
        values (v_id, %2$L, v_payload, v_now, v_now);
        if pg_sequence_last_value('stepbase.relay_idle_until') > v_ms then
          perform pg_notify('stepbase', 'o');
        end if;
        return null;
      end
      $body$
    $f$,
    'emit_' || v_name, p_event, v_data);
  execute format(
    'revoke all on function stepbase.%I() from public, anon, authenticated, service_role',
    'emit_' || v_name);

  insert into stepbase.row_triggers (table_id, event, condition, columns, name, created_at)
  values (
    p_table, p_event, stepbase.make_row_triggers(p_table, v_name, nullif(btrim(p_when), '')),
    nullif(btrim(p_columns), ''), v_name, stepbase.now());
  return v_name;
end
$$;

-- Undoes track: for one event of the table, or for all. Returns how many row triggers there were.
-- Also forgets those of tables that are gone. Events already in the outbox stay.
create function stepbase.untrack(p_table regclass, p_event text default null) returns int
  language plpgsql
  set search_path = ''
  as $$
declare
  v_row record;
  v_count int := 0;
begin
  for v_row in
    delete from stepbase.row_triggers as r
    where (r.table_id = p_table and (p_event is null or r.event = p_event))
      or not exists (select from pg_class where oid = r.table_id)
    returning r.table_id = p_table as asked, r.name
  loop
    -- Its triggers go with the function, also on a table that is another's (auth.users).
    execute format('drop function if exists stepbase.%I() cascade', 'emit_' || v_row.name);
    v_count := v_count + v_row.asked::int;
  end loop;
  return v_count;
end
$$;
