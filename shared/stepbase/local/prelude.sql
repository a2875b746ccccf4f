-- What every Supabase project has before its first migration, for a database that is not one.
--
-- Roles (cluster-wide), the schemas auth and extensions, a minimal auth.users, the functions that
-- read a request's claims, and the grants of a fresh project. Everything is created only where it is
-- missing, so on a real Supabase database, or a second time, this file changes nothing.
--
-- Since 30 October 2026 nothing new in `public` is granted to the API roles, and functions are not
-- executable by everybody either: the last block does the same here, so that a migration that
-- forgets a grant fails on the developer's machine and not in production.

do $$
declare
  v_role record;
begin
  for v_role in
    select *
    from (values
      ('anon', 'nologin noinherit', '3s'),
      ('authenticated', 'nologin noinherit', '8s'),
      ('service_role', 'nologin noinherit bypassrls', null),
      ('authenticator', 'login noinherit', '8s'),
      ('supabase_auth_admin', 'nologin noinherit createrole', null)
    ) as t(name, options, timeout)
    where not exists (select from pg_catalog.pg_roles where rolname = t.name)
  loop
    -- Roles are shared by every database of the server: another session may be preparing its own.
    begin
      execute format('create role %I %s', v_role.name, v_role.options);
    exception
      when duplicate_object or unique_violation then continue;
    end;
    if v_role.timeout is not null then
      execute format('alter role %I set statement_timeout = %L', v_role.name, v_role.timeout);
    end if;
  end loop;

  for v_role in
    select name
    from unnest(array['anon', 'authenticated', 'service_role']) as name
    where not pg_catalog.pg_has_role('authenticator', name, 'member')
  loop
    execute format('grant %I to authenticator', v_role.name);
  end loop;
end
$$;

create schema if not exists extensions;

do $$
begin
  if to_regnamespace('auth') is not null then
    return;
  end if;

  create schema auth;

  create table auth.users (
    id uuid primary key default gen_random_uuid(),
    aud text default 'authenticated',
    role text default 'authenticated',
    email text unique,
    phone text unique,
    encrypted_password text,
    raw_app_meta_data jsonb,
    raw_user_meta_data jsonb,
    email_confirmed_at timestamptz,
    last_sign_in_at timestamptz,
    is_anonymous boolean not null default false,
    created_at timestamptz default now(),
    updated_at timestamptz default now(),
    deleted_at timestamptz
  );
  alter table auth.users enable row level security;

  -- The claims of the request's token, as the REST gateway sets them for each transaction. The
  -- single-claim settings are the older form; it is still read, first, as Supabase does.
  create function auth.jwt() returns jsonb
    language sql stable
    set search_path = ''
    as $f$
      select coalesce(
        nullif(current_setting('request.jwt.claim', true), ''),
        nullif(current_setting('request.jwt.claims', true), '')
      )::jsonb
    $f$;

  create function auth.uid() returns uuid
    language sql stable
    set search_path = ''
    as $f$
      select coalesce(
        nullif(current_setting('request.jwt.claim.sub', true), ''),
        auth.jwt() ->> 'sub'
      )::uuid
    $f$;

  create function auth.role() returns text
    language sql stable
    set search_path = ''
    as $f$
      select coalesce(
        nullif(current_setting('request.jwt.claim.role', true), ''),
        auth.jwt() ->> 'role'
      )
    $f$;

  create function auth.email() returns text
    language sql stable
    set search_path = ''
    as $f$
      select coalesce(
        nullif(current_setting('request.jwt.claim.email', true), ''),
        auth.jwt() ->> 'email'
      )
    $f$;

  grant usage on schema auth to anon, authenticated, service_role;
  grant execute on all functions in schema auth to anon, authenticated, service_role;
  grant usage, create on schema auth to supabase_auth_admin;
  grant all on all tables in schema auth to supabase_auth_admin;
  grant usage on schema public, extensions to anon, authenticated, service_role;

  alter default privileges revoke execute on functions from public;
end
$$;
