-- Writes to tables that happen exactly once: insert, upsert, update and delete without an SQL function.
--
-- A step calls `public.stepbase_write`, which goes through the ledger as a call does: key, write and result
-- in one transaction. Its business keys have a space of their own, so that one key may stand for a call
-- and for a write.
--
-- Tables and columns are looked up in the catalogue, and only what is found there enters a statement, as a
-- quoted identifier. Values never do: they are read out of the request's JSON with the columns' own types,
-- as the REST API reads them.

-- The table or view that p_table ('name' or 'schema.name') means. Raises SB002 (its schema is not open to
-- steps, or it is of a kind whose writes are not part of the transaction), 42P01 (there is none), 42P09
-- (several).
create function stepbase.resolve_table(p_table text) returns regclass
  language plpgsql
  stable
  set search_path = ''
  as $$
declare
  v_schema constant text := substring(p_table from '^(.*)\.');
  v_name constant text := regexp_replace(p_table, '^.*\.', '');
  v_found regclass[];
  v_kind "char";
begin
  v_found := array(
    select c.oid::regclass
    from pg_class as c
    join pg_namespace as n on n.oid = c.relnamespace
    join stepbase.callable_schemas as s on s.schema_name = n.nspname
    where c.relname = v_name
      and (v_schema is null or n.nspname = v_schema)
      and c.relkind in ('r', 'p', 'v', 'm', 'f')
    order by c.oid);
  if cardinality(v_found) > 1 then
    raise exception 'table % is in several schemas: %', p_table, array_to_string(v_found, ', ')
      using errcode = '42P09', hint = 'Name its schema.';
  elsif v_found = '{}' and v_schema is not null
    and not exists (select from stepbase.callable_schemas as s where s.schema_name = v_schema)
  then
    raise exception 'table % cannot be written by a step: its schema is not open to steps', p_table
      using errcode = 'SB002',
        hint = format('Open it: insert into stepbase.callable_schemas values (%L).', v_schema);
  elsif v_found = '{}' then
    raise exception 'table % was not found in the schemas open to steps', p_table
      using errcode = '42P01', hint = 'Is the migration that makes it applied?';
  end if;

  select c.relkind into v_kind from pg_class as c where c.oid = v_found[1];
  if v_kind in ('m', 'f') then
    raise exception 'table % cannot be written by a step: it is a %', v_found[1],
      case v_kind when 'm' then 'materialized view' else 'foreign table, written outside this database' end
      using errcode = 'SB002';
  end if;
  return v_found[1];
end
$$;

-- The columns p_names of a table with their types, 'id bigint, note text', as json_to_record wants them.
-- Raises 42703 for a name that is no column.
create function stepbase.typed_columns(p_table regclass, p_names text[]) returns text
  language plpgsql
  stable
  set search_path = ''
  as $$
declare
  v_columns text;
  v_unknown text;
begin
  select
    string_agg(format('%I %s', u.name, format_type(a.atttypid, a.atttypmod)), ', ' order by u.i),
    min(u.name) filter (where a.attnum is null)
  into v_columns, v_unknown
  from unnest(p_names) with ordinality as u(name, i)
  left join pg_attribute as a
    on a.attrelid = p_table and a.attname = u.name and a.attnum > 0 and not a.attisdropped;
  if v_unknown is not null then
    raise exception 'table % has no column %', p_table, quote_ident(v_unknown)
      using errcode = '42703',
        detail = 'It has ' || (
          select string_agg(quote_ident(a.attname), ', ' order by a.attnum)
          from pg_attribute as a
          where a.attrelid = p_table and a.attnum > 0 and not a.attisdropped) || '.',
        hint = 'Is the migration that adds it applied?';
  end if;
  return v_columns;
end
$$;

-- The condition that p_filters means, {"amount": {"gte": 1, "lt": 5}, …}, over the table as t, and in
-- p_from the items that read its operands out of $1 with the column's own type. All filters must hold.
-- Operators: eq, neq, gt, gte, lt, lte, in, is_null. Raises SB006 without a filter, 42703 for an unknown
-- column, 22023 for another operator or a null operand, which no row would match.
create function stepbase.filter_condition(
  p_table regclass,
  p_fn text,
  p_filters jsonb,
  out p_from text,
  out p_where text
)
  language plpgsql
  stable
  set search_path = ''
  as $$
declare
  v_odd text;
begin
  if coalesce(p_filters, '{}') = '{}' then
    raise exception '% without a filter would reach every row', p_fn
      using errcode = 'SB006', hint = 'Say which rows are meant. A primary key is best.';
  end if;
  perform stepbase.typed_columns(p_table, array(select jsonb_object_keys(p_filters)));

  with tests as (
    select f.column_name, f.i, o.op, o.value,
      format('t.%I ', f.column_name)
        || case o.op
          when 'eq' then '='
          when 'neq' then '<>'
          when 'gt' then '>'
          when 'gte' then '>='
          when 'lt' then '<'
          when 'lte' then '<='
          when 'in' then '= any'
          when 'is_null' then case o.value when 'true' then 'is null' when 'false' then 'is not null' end
        end
        || case
          when o.op = 'is_null' then ''
          when jsonb_typeof(o.value) <> 'null' then format(' (f%s.%I)', f.i, o.op)
        end as test,
      quote_ident(o.op) || ' ' || format_type(a.atttypid, -1) || case o.op when 'in' then '[]' else '' end
        as operand
    from jsonb_each(p_filters) with ordinality as f(column_name, ops, i)
    -- A column without an operator must not become a filter that is not there.
    left join lateral jsonb_each(f.ops) as o(op, value) on true
    join pg_attribute as a
      on a.attrelid = p_table and a.attname = f.column_name and a.attnum > 0 and not a.attisdropped
  ), sources as (
    select i, column_name, string_agg(operand, ', ') filter (where op <> 'is_null') as operands,
      string_agg(test, ' and ') as test,
      min(concat_ws(' ', quote_ident(column_name), op, value)) filter (where test is null) as odd
    from tests
    group by i, column_name
  )
  select
    string_agg(format('pg_catalog.json_to_record($1 -> ''filters'' -> %L) as f%s(%s)',
      column_name, i, operands), ', ') filter (where operands is not null),
    string_agg(test, ' and '),
    min(odd)
  into p_from, p_where, v_odd
  from sources;
  if v_odd is not null then
    raise exception '% cannot filter by %', p_fn, v_odd
      using errcode = '22023',
        hint = 'Operators are eq, neq, gt, gte, lt, lte, in and is_null, which is true or false.';
  end if;
end
$$;

-- The 'on conflict' clause of an upsert of these columns: on p_target, or else the primary key, the other
-- columns are set, or with p_ignore nothing is. Raises 22023 when there is no primary key either.
create function stepbase.conflict_clause(
  p_table regclass,
  p_columns text[],
  p_target jsonb,
  p_ignore boolean
) returns text
  language plpgsql
  stable
  set search_path = ''
  as $$
declare
  v_target text[];
  v_set text[];
begin
  if jsonb_typeof(p_target) = 'array' then
    v_target := array(select jsonb_array_elements_text(p_target));
    perform stepbase.typed_columns(p_table, v_target);
  else
    v_target := array(
      select a.attname
      from pg_index as i
      cross join lateral unnest(i.indkey) with ordinality as k(attnum, n)
      join pg_attribute as a on a.attrelid = i.indrelid and a.attnum = k.attnum
      where i.indrelid = p_table and i.indisprimary
      order by k.n);
  end if;
  if v_target = '{}' then
    raise exception 'an upsert into % needs on_conflict: it has no primary key', p_table
      using errcode = '22023';
  end if;

  v_set := array(select c from unnest(p_columns) as c where c <> all (v_target));
  if v_set = '{}' then
    -- Nothing to change; set all the same, so that the row that is there is locked and returned.
    v_set := v_target[:1];
  end if;
  return format(' on conflict (%s) do ',
      (select string_agg(quote_ident(c), ', ' order by n) from unnest(v_target) with ordinality as u(c, n)))
    || case
      when p_ignore then 'nothing'
      else 'update set ' || (select string_agg(format('%I = excluded.%1$I', c), ', ') from unnest(v_set) as c)
    end;
end
$$;

-- The writing parts of an insert or upsert of "rows" in $1. Rows that name the same columns are one part, so
-- that columns which a row does not name take their defaults. Raises 42703, 22023.
create function stepbase.insert_parts(p_table regclass, p_action text, p_args jsonb) returns text[]
  language plpgsql
  stable
  set search_path = ''
  as $$
declare
  v_shape record;
  v_columns text;
  v_names text;
  v_part text;
  v_parts text[] := '{}'::text[];
begin
  if jsonb_typeof(p_args -> 'rows') is distinct from 'array'
    or exists (select from jsonb_array_elements(p_args -> 'rows') as r where jsonb_typeof(r) <> 'object')
  then
    raise exception '% into %: rows must be an array of objects', p_action, p_table using errcode = '22023';
  end if;

  for v_shape in
    select r.names, array_agg(r.n) as places, count(*) over () as shapes
    from (
      select e.n, array(select jsonb_object_keys(e.value)) as names
      from jsonb_array_elements(p_args -> 'rows') with ordinality as e(value, n)
    ) as r
    -- A statement with defaults alone makes one row.
    group by r.names, case when r.names = '{}' then r.n end
    order by min(r.n)
  loop
    v_columns := stepbase.typed_columns(p_table, v_shape.names);
    v_part := format('insert into %s as t ', p_table);
    if v_columns is null then
      v_part := v_part || 'default values';
    else
      v_names := (select string_agg(quote_ident(c), ', ' order by i)
        from unnest(v_shape.names) with ordinality as u(c, i));
      v_part := v_part || format(
        '(%s) select r.* from pg_catalog.json_array_elements($1 -> ''rows'') with ordinality as e(value, n)'
        ' cross join lateral pg_catalog.json_to_record(e.value) as r(%s)%s order by e.n',
        v_names, v_columns,
        case when v_shape.shapes > 1 then format(' where e.n = any (%L)', v_shape.places) else '' end);
    end if;
    if p_action = 'upsert' then
      v_part := v_part || stepbase.conflict_clause(
        p_table, v_shape.names, p_args -> 'on_conflict',
        coalesce((p_args -> 'ignore_duplicates')::boolean, false));
    end if;
    v_parts := v_parts || v_part;
  end loop;
  return v_parts;
end
$$;

-- The writing part of an update with "values" and "filters", or a delete with "filters", in $1. Raises
-- SB006 without a filter, 42703, and 22023 when there is nothing to set.
create function stepbase.change_part(p_table regclass, p_action text, p_fn text, p_args jsonb)
  returns text
  language plpgsql
  stable
  set search_path = ''
  as $$
declare
  v_filter record;
  v_names text[];
  v_columns text;
begin
  v_filter := stepbase.filter_condition(p_table, p_fn, p_args -> 'filters');
  if p_action = 'delete' then
    return format('delete from %s as t %s where %s',
      p_table, 'using ' || v_filter.p_from, v_filter.p_where);
  end if;

  if coalesce(p_args -> 'values', '{}') = '{}' or jsonb_typeof(p_args -> 'values') <> 'object' then
    raise exception '% has nothing to set: values must be an object by column', p_fn
      using errcode = '22023';
  end if;
  v_names := array(select jsonb_object_keys(p_args -> 'values'));
  v_columns := stepbase.typed_columns(p_table, v_names);
  return format('update %s as t set %s from %s where %s',
    p_table,
    (select string_agg(format('%I = r.%1$I', c), ', ') from unnest(v_names) as c),
    concat_ws(', ',
      format('pg_catalog.json_to_record($1 -> ''values'') as r(%s)', v_columns), v_filter.p_from),
    v_filter.p_where);
end
$$;

-- The statement that makes a write with the arguments in $1 (json), and gives the text of the array of rows
-- that it wrote, or null if they are not wanted.
create function stepbase.write_statement(
  p_table regclass,
  p_action text,
  p_fn text,
  p_args jsonb,
  p_returning boolean
) returns text
  language plpgsql
  stable
  set search_path = ''
  as $$
declare
  v_parts constant text[] := case
    when p_action in ('update', 'delete')
      then array[stepbase.change_part(p_table, p_action, p_fn, p_args)]
    else stepbase.insert_parts(p_table, p_action, p_args)
  end;
  v_with text;
  v_rows text;
begin
  select
    string_agg(format('w%s as (%s%s)', i, part, case when p_returning then ' returning t.*' else '' end), ', '),
    string_agg('select * from w' || i, ' union all ' order by i)
  into v_with, v_rows
  from unnest(v_parts) with ordinality as u(part, i);
  return case when v_with is null then '' else 'with ' || v_with || ' ' end || case
    when not p_returning then 'select ''null'''
    when v_rows is null then 'select ''[]'''
    -- w.* and not w, which could be a column.
    else format('select coalesce(pg_catalog.json_agg(w.*), ''[]'')::text from (%s) as w', v_rows)
  end;
end
$$;

-- The arguments of a write as the ledger tells them apart, by column where that helps: 'values.status',
-- 'filters.id', and 'rows.amount' if there is one row.
create function stepbase.write_arguments(p_args jsonb) returns jsonb
  language plpgsql
  immutable
  set search_path = ''
  as $$
begin
  return (
    with arguments as (
      select a.name, case
          when a.name = 'rows' and jsonb_array_length(a.value) = 1 then a.value -> 0
          else a.value
        end as value
      from jsonb_each(p_args) as a(name, value)
    )
    select jsonb_object_agg(concat_ws('.', a.name, c.name), coalesce(c.value, a.value))
    from arguments as a
    left join lateral jsonb_each(
      case when jsonb_typeof(a.value) = 'object' then a.value else '{}' end) as c(name, value) on true
  );
end
$$;

-- Writes to a table once per key, and answers as run_once with the array of rows that were written, or with
-- null if p_returning is false. p_action and p_args:
--   insert  {"rows": [{…}, …]}
--   upsert  {"rows": […], "on_conflict": ["id"], "ignore_duplicates": true}; the last two may be left out
--   update  {"values": {…}, "filters": {"id": {"eq": 7}}}
--   delete  {"filters": {…}}
-- The key is p_key, or p_run_id and p_step. p_as_user are the claims of the user it runs as, under row level
-- security; p_timeout_ms is how long it may wait for locks.
-- Raises SB001 (the key stands for another write), SB002 (a table no step may write), SB003 (result over 4
-- MiB), SB004 (no key), SB005 (result pruned), SB006 (no filter), 22023 (arguments of another form), 42P01
-- and 42703 (no such table or column), and whatever the write raises; then nothing is kept.
create function public.stepbase_write(
  p_table text,
  p_action text,
  p_args json,
  p_run_id text default null,
  p_step text default null,
  p_key text default null,
  p_as_user json default null,
  p_timeout_ms int default null,
  p_returning boolean default true
) returns text
  language plpgsql
  set search_path = ''
  -- As for stepbase_call.
  set statement_timeout = '60s'
  as $$
declare
  v_args constant jsonb := p_args::jsonb;
  v_as_user constant jsonb := nullif(p_as_user::jsonb, 'null');
  v_table constant regclass := stepbase.resolve_table(p_table);
  v_fn constant text := case p_action
    when 'insert' then 'insert into '
    when 'upsert' then 'upsert into '
    when 'update' then 'update '
    when 'delete' then 'delete from '
  end || v_table::text;
begin
  if v_fn is null or jsonb_typeof(v_args) is distinct from 'object' then
    raise exception 'a write is insert, upsert, update or delete with an object of arguments, not % with %',
      coalesce(p_action, 'null'), coalesce(jsonb_typeof(v_args), 'null')
      using errcode = '22023';
  end if;
  return stepbase.run_once(
    stepbase.ledger_key('table', p_key, p_run_id, p_step, v_fn), p_run_id, p_step, v_fn,
    stepbase.hash_args(stepbase.write_arguments(v_args), v_as_user),
    stepbase.write_statement(v_table, p_action, v_fn, v_args, p_returning), p_args,
    (select n.nspname from pg_class as c join pg_namespace as n on n.oid = c.relnamespace
      where c.oid = v_table),
    v_as_user, p_timeout_ms);
end
$$;

comment on function public.stepbase_write is
  'Writes to a table once per key and keeps the rows it wrote; for durable steps. service_role only.';
