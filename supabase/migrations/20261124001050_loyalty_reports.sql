-- What the app "reports" reads and keeps: a merchant's figures by day, rankings by week, and a journal
-- of sales. Days and weeks are those of a time zone, which is the caller's.

create table public.merchant_reports (
  merchant_id text not null references public.merchants,
  day date not null,
  purchases int not null,
  sold_cents bigint not null,
  refunded_cents bigint not null,
  awarded_points bigint not null,
  -- In words; only reports of whole days have one.
  summary text,
  made_at timestamptz not null default now(),
  primary key (merchant_id, day)
);

create table public.merchant_rankings (
  -- Its Monday.
  week date not null,
  place int not null,
  merchant_id text not null references public.merchants,
  sold_cents bigint not null,
  primary key (week, merchant_id),
  constraint places_are_counted_from_one check (place >= 1)
);

-- One row a sale, written a hundred at a time: what analysts read instead of the shop's own tables.
create table public.sales_journal (
  purchase_id text primary key,
  merchant_id text not null,
  user_id uuid not null,
  amount_cents bigint not null,
  paid_at timestamptz not null
);

-- The foreign key's own query.
create index rankings_of_merchant on public.merchant_rankings (merchant_id);

alter table public.merchant_reports enable row level security;
alter table public.merchant_rankings enable row level security;
alter table public.sales_journal enable row level security;

-- Every merchant, by id.
create function public.list_merchants() returns setof text
  language sql
  stable
  set search_path = ''
  as $$ select m.id from public.merchants as m order by m.id $$;

comment on function public.list_merchants() is 'Every merchant.';

-- What a merchant sold from one day up to another, which no longer counts, in a time zone: how many
-- purchases that are paid or were, what was paid for them, and what of that was given back, in cents.
-- Raises 22023 for a time zone that is not known.
create function public.sales_between(
  p_merchant_id text,
  p_from date,
  p_until date,
  p_zone text default 'UTC',
  out purchases bigint,
  out sold_cents bigint,
  out refunded_cents bigint
)
  language sql
  stable
  set search_path = ''
  as $$
    select
      count(*),
      coalesce(sum(p.amount_cents), 0)::bigint,
      coalesce(sum(p.amount_cents) filter (where p.status = 'refunded'), 0)::bigint
    from public.purchases as p
    where p.merchant_id = p_merchant_id
      and p.status <> 'pending'
      and p.created_at >= p_from::timestamp at time zone p_zone
      and p.created_at < p_until::timestamp at time zone p_zone
  $$;

comment on function public.sales_between(text, date, date, text) is
  'What a merchant sold from one day up to another, which no longer counts.';

-- The points that a merchant's purchases were awarded from one day up to another, less what was taken
-- back. Raises 22023 for a time zone that is not known.
create function public.points_between(
  p_merchant_id text, p_from date, p_until date, p_zone text default 'UTC'
)
  returns bigint
  language sql
  stable
  set search_path = ''
  as $$
    select coalesce(sum(t.amount), 0)::bigint
    from public.purchases as p
    join public.wallet_transactions as t on t.kind in ('award', 'reversal') and t.source_id = p.id
    where p.merchant_id = p_merchant_id
      and t.created_at >= p_from::timestamp at time zone p_zone
      and t.created_at < p_until::timestamp at time zone p_zone
  $$;

comment on function public.points_between(text, date, date, text) is
  'The points that a merchant''s purchases were awarded, less what was taken back.';
