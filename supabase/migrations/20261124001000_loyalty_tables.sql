-- The loyalty domain: merchants reward purchases, users collect what they were awarded in a wallet.
--
-- Amounts are whole minor units (cents, points), bigint. A purchase goes pending → paid → refunded and
-- never back from refunded. A wallet's balance is always the sum of its transactions. The purchase's
-- row is the lock for everything that depends on its status: who awards or reverses holds it.
--
-- User ids are those of auth.users, without a foreign key: a book entry outlives the account.
-- Schema rewards holds what only these functions use; the API does not serve it.

create schema rewards;

create table public.merchants (
  id text primary key,
  name text not null,
  -- What a purchase earns, in hundredths of a percent of its amount.
  rate_bp int not null,
  -- How long after the purchase its award is posted; fractions are allowed (0.5 is half an hour).
  award_delay_hours numeric not null default 0,
  -- How long an award may be kept; null: for ever.
  points_expire_after_days int,
  created_at timestamptz not null default now(),
  constraint an_id_is_not_empty check (id <> ''),
  constraint a_rate_is_between_nothing_and_everything check (rate_bp between 0 and 10000),
  constraint a_delay_is_at_most_a_year check (award_delay_hours between 0 and 8760),
  constraint points_live_for_a_day_or_longer check (points_expire_after_days >= 1)
);

create table public.purchases (
  id text primary key default gen_random_uuid(),
  merchant_id text not null references public.merchants,
  user_id uuid not null,
  amount_cents bigint not null,
  status text not null default 'pending',
  created_at timestamptz not null default now(),
  constraint an_id_is_not_empty check (id <> ''),
  -- The upper limit keeps amount * rate within a bigint.
  constraint an_amount_is_not_negative_and_below_1e14 check (amount_cents between 0 and 99999999999999),
  constraint a_purchase_is_pending_paid_or_refunded check (status in ('pending', 'paid', 'refunded'))
);

create table public.wallets (
  user_id uuid primary key,
  -- May be negative: taking back an award that was spent must not fail.
  balance bigint not null default 0,
  updated_at timestamptz not null default now()
);

create table public.wallet_transactions (
  id bigint generated always as identity primary key,
  user_id uuid not null references public.wallets,
  kind text not null,
  -- What it is for: a purchase's id; of a bonus, what is given once (`welcome:<user>`).
  source_id text not null,
  amount bigint not null,
  created_at timestamptz not null default now(),
  -- The last line of defence: whatever calls it, a purchase is awarded once, reversed once and
  -- expires once, and a bonus is given once.
  constraint a_source_has_one_transaction_of_a_kind unique (kind, source_id),
  constraint an_award_adds_and_a_reversal_takes check (
    (kind in ('award', 'bonus') and amount > 0) or (kind in ('reversal', 'expiry') and amount < 0))
);

-- The foreign key's own queries, and a merchant's purchases.
create index purchases_of_merchant on public.purchases (merchant_id);
-- "My purchases", and the owner policy.
create index purchases_of_user on public.purchases (user_id);
-- "My transactions", the owner policy, and the wallet's foreign key.
create index transactions_of_user on public.wallet_transactions (user_id, id);

alter table public.merchants enable row level security;
alter table public.purchases enable row level security;
alter table public.wallets enable row level security;
alter table public.wallet_transactions enable row level security;

-- Users see what is theirs and change nothing; all writing is the service's. Merchants are the
-- service's alone.
create policy "users see their own purchases" on public.purchases
  for select to authenticated using (user_id = (select auth.uid()));
create policy "users see their own wallet" on public.wallets
  for select to authenticated using (user_id = (select auth.uid()));
create policy "users see their own transactions" on public.wallet_transactions
  for select to authenticated using (user_id = (select auth.uid()));

-- A refund is final: an award that was skipped because of it would never be made up for.
create function rewards.refuse_unrefund() returns trigger
  language plpgsql
  set search_path = ''
  as $$
begin
  raise exception 'purchase % is refunded and stays so', old.id
    using hint = 'Record a new purchase instead.';
end
$$;

create trigger a_refund_is_final before update on public.purchases
  for each row when (old.status = 'refunded' and new.status <> 'refunded')
  execute function rewards.refuse_unrefund();
