-- What test_sdk_rpc.py calls.
create table public.notes (id bigint generated always as identity primary key, body text not null);
create table public.secrets (owner uuid not null, body text not null);
alter table public.secrets enable row level security;
create policy own on public.secrets to authenticated
  using (owner = (select auth.uid())) with check (owner = (select auth.uid()));
grant select, insert on public.secrets to authenticated, service_role;

create function public.add_note(p_body text) returns bigint
  language sql as $$ insert into public.notes (body) values (p_body) returning id $$;
create function public.echo(p_value json) returns json
  language sql stable as $$ select p_value $$;
create function public.echo_numeric(p_value numeric) returns numeric
  language sql stable as $$ select p_value $$;
create function public.echo_bigint(p_value bigint) returns bigint
  language sql stable as $$ select p_value $$;
create function public.note_rows() returns setof public.notes
  language sql stable as $$ select * from public.notes order by id $$;
create function public.nothing() returns void language sql as $$ select null::void $$;
create function public.fail_with(p_code text, p_message text) returns void
  language plpgsql as $$ begin raise exception using errcode = p_code, message = p_message; end $$;
create function public.add_secret(p_owner uuid, p_body text) returns void
  language sql as $$ insert into public.secrets values (p_owner, p_body) $$;
create function public.write_read_only() returns void
  language plpgsql as $$
begin
  perform set_config('transaction_read_only', 'on', true);
  insert into public.notes (body) values ('x');
end $$;
create function public.forbidden() returns int language sql as $$ select 1 $$;

grant select, insert on public.notes to service_role;
revoke execute on all functions in schema public from public;
grant execute on function public.add_note, public.echo, public.echo_numeric, public.echo_bigint,
  public.note_rows, public.nothing, public.fail_with, public.add_secret,
  public.write_read_only to service_role;
grant execute on function public.add_secret to authenticated;
