-- What the app "onboarding" needs: the event of a sign-up, whom to write to, and the welcome bonus.

-- Whom to write to. auth.users is Supabase's own: the app keeps what it needs here, when a user signs up.
create table public.customers (
  user_id uuid primary key,
  email text,
  signed_up_at timestamptz not null default now(),
  constraint an_address_is_not_empty check (email <> '')
);

alter table public.customers enable row level security;

create policy "users see their own entry" on public.customers
  for select to authenticated using (user_id = (select auth.uid()));

-- The event comes when the address is confirmed, which may be at once, later or never; the update that
-- does it fires it once. A database without Supabase's auth has no sign-ups.
do $$
begin
  if to_regclass('auth.users') is not null then
    perform stepbase.track(
      'auth.users', 'user/signup', 'new.email_confirmed_at is not null', 'id, email');
  end if;
end
$$;

-- A user's mail address; null for one who has none or did not sign up here.
create function public.email_of(p_user_id uuid) returns text
  language sql
  stable
  set search_path = ''
  as $$ select c.email from public.customers as c where c.user_id = p_user_id $$;

comment on function public.email_of(uuid) is 'A user''s mail address, if there is one.';

-- Credits the welcome bonus for a user's first purchase, once for each user. Returns what came of it:
--   posted   the transaction, and the balance after it
--   already  the user has had it, and nothing changed
--   skipped  the purchase is refunded, and nothing changed
-- Raises P0001 when there is no such purchase, it is another user's or not paid; 22023 for a bonus that
-- is not positive. Locks the purchase, then the wallet.
create function public.post_welcome_bonus(
  p_user_id uuid,
  p_source_id text,
  p_amount bigint,
  out outcome text,
  out transaction_id bigint,
  out balance bigint
)
  language plpgsql
  set search_path = ''
  as $$
declare
  v_status text;
begin
  select p.status into v_status
  from public.purchases as p
  where p.id = p_source_id and p.user_id = p_user_id
  for no key update;
  if not found then
    raise exception 'there is no purchase % of user %', p_source_id, p_user_id;
  elsif v_status = 'pending' then
    raise exception 'purchase % is not paid', p_source_id;
  elsif p_amount is null or p_amount <= 0 then
    raise exception 'a bonus is more than zero, not %', p_amount using errcode = '22023';
  elsif v_status = 'refunded' then
    outcome := 'skipped';
    return;
  end if;

  select b.transaction_id, b.balance
  into transaction_id, balance
  from rewards.book_transaction(p_user_id, 'bonus', 'welcome:' || p_user_id, p_amount) as b;
  outcome := case when transaction_id is null then 'already' else 'posted' end;
end
$$;

comment on function public.post_welcome_bonus(uuid, text, bigint) is
  'Credit the welcome bonus, once for each user; skipped when the purchase is refunded.';
