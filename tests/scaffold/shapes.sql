-- SQL functions of every shape, for the tests of `stepbase gen rpc`. `takes_…` say what arguments are
-- annotated with, `gives_…` what results are read into; the rest is called.

create schema shapes;
create schema more;
create type shapes.mood as enum ('glad', 'sad', 'it''s "so-so"');
create type shapes.amount as (cents bigint, currency text);
create domain shapes.positive as int check (value > 0);
create table shapes.items (
  id int primary key, name text not null, price numeric, tags text[] not null default '{}', feeling shapes.mood
);
insert into shapes.items values (1, 'pen', 1.50, '{a,b}', 'glad'), (2, 'ink', null, '{}', null);
create table shapes.odd ("class" int not null, "two words" text, _private int, json text, model_name text);
insert into shapes.odd values (1, 'x', 2, '{}', 'm');

do $$
declare
  v_type text;
begin
  foreach v_type in array array[
    'bool', 'int2', 'int4', 'int8', 'oid', 'float4', 'float8', 'numeric', 'numeric(10,2)', 'text', 'varchar(9)',
    'char', 'name', 'uuid', 'date', 'time', 'timetz', 'timestamp', 'timestamptz', 'interval', 'json', 'jsonb',
    'bytea', 'inet', 'int4range', 'point', 'money', 'bit', 'xml', 'tsvector',
    'text[]', 'numeric[]', 'uuid[]', 'jsonb[]', 'interval[]',
    'shapes.mood', 'shapes.mood[]', 'shapes.amount', 'shapes.amount[]', 'shapes.positive', 'shapes.positive[]'
  ]
  loop
    execute format(
      'create function shapes.%I(p %s) returns %2$s language sql set search_path = '''' as ''select p''',
      'echo ' || replace(v_type, '.', ' '), v_type);
  end loop;
end
$$;

create function shapes.nothing() returns void language sql as '';
create function shapes.many_numbers(p_upto int) returns setof bigint language sql
  as 'select generate_series(1, p_upto)::bigint';
create function shapes.one_item(p_id int) returns shapes.items language sql
  as 'select i from shapes.items as i where i.id = p_id';
create function shapes.all_items() returns setof shapes.items language sql
  as 'select * from shapes.items order by id';
create function shapes.all_odd() returns setof shapes.odd language sql as 'select * from shapes.odd';
create function shapes.prices(p_least numeric default 0) returns table (item text, price numeric)
  language sql as 'select name, price from shapes.items where price >= p_least';
create function shapes.one_column() returns table (n int) language sql as 'select 7';
create function shapes.split(p_text text, out head text, out length int) language sql
  as 'select left(p_text, 1), length(p_text)';
create function shapes.grow(inout p_by int, p_times int default 2) language sql as 'select p_by * p_times';
create function shapes.defaults(a int, b text default 'd', c int default null) returns text
  language sql as $$ select concat_ws('-', a, coalesce(b, 'null'), coalesce(c::text, 'null')) $$;
create function shapes."class"("from" int, "two words" text, "int" int, "RpcCall" int) returns int
  language sql as 'select $1 + $3 + $4';
create function shapes.args(args int, args_ int default 1) returns int language sql as 'select $1 + $2';
create function shapes.list(p int) returns int[] language sql as 'select array[p]';
create function shapes.find(p_id int) returns text language sql as $$ select 'by id' $$;
create function shapes.find(p_name text, p_fuzzy boolean default false) returns text
  language sql as $$ select 'by name' $$;
create function shapes.find() returns text language sql as $$ select 'any' $$;
create function shapes.twin() returns int language sql as 'select 1';
create function more.twin() returns int language sql as 'select 2';
create function more.a_function_whose_name_is_as_long_as_postgres_allows_one_to_be() returns setof shapes.items
  language sql as 'select * from shapes.items';

-- What no step can call.
create function shapes."a.dot"() returns int language sql as 'select 1';
create function shapes.several(variadic p int[]) returns int language sql as 'select 1';
create function shapes.unnamed(int) returns int language sql as 'select 1';
create function shapes.polymorphic(p anyelement) returns anyelement language sql as 'select p';
create function shapes.shapeless() returns record language sql as 'select 1, 2';
create function shapes.of_a_trigger() returns trigger language plpgsql as 'begin return new; end';
create procedure shapes.a_procedure() language sql as '';

comment on function shapes.defaults(int, text, int) is 'Join what is given.

Left out, b is ''d'', and "c" is null: a backslash \ and """ may stand here, and a line that is too long for a module of ninety-odd columns is broken.
  * an item';
comment on function shapes.split(text) is 'Say "yes"';

insert into stepbase.callable_schemas values ('shapes'), ('more');
grant usage on schema shapes, more to service_role;
grant execute on all functions in schema shapes, more to service_role;
grant select on all tables in schema shapes to service_role;
notify pgrst, 'reload schema';
