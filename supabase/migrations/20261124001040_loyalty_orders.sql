-- What the app "orders" keeps: reviews of large orders by people, and what became of unpaid ones.

create table public.order_reviews (
  purchase_id text primary key references public.purchases,
  -- open until somebody decides (in the dashboard's table editor, for instance), or nobody did in time.
  status text not null default 'open',
  decided_by text,
  note text,
  opened_at timestamptz not null default now(),
  constraint a_review_is_open_decided_or_lapsed
    check (status in ('open', 'approved', 'refused', 'lapsed'))
);

create table public.order_follow_ups (
  purchase_id text primary key references public.purchases,
  outcome text not null,
  noted_at timestamptz not null default now(),
  constraint an_order_is_paid_in_time_after_a_reminder_or_not
    check (outcome in ('paid', 'paid after a reminder', 'not paid'))
);

alter table public.order_reviews enable row level security;
alter table public.order_follow_ups enable row level security;

-- Somebody has decided. That nobody did in time is the function's own doing, and no news to it.
select stepbase.track(
  'public.order_reviews', 'order/review.decided', $$ new.status in ('approved', 'refused') $$,
  'purchase_id, status, decided_by');
