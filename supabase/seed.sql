-- A small shop to play with: `stepbase dev` and `supabase db reset` load it into a new database.
-- Paying for a purchase is `update purchases set status = 'paid' where id = 'order-3'`.

-- Confirmed, so both are welcomed (the app "onboarding").
insert into auth.users (id, email, email_confirmed_at)
values
  ('a0000000-0000-4000-8000-000000000001', 'ann@shop.example', now()),
  ('b0000000-0000-4000-8000-000000000002', 'bob@shop.example', now())
on conflict (id) do nothing;

insert into public.merchants (id, name, rate_bp, award_delay_hours, points_expire_after_days)
values
  ('books', 'Books', 250, 0, 90),
  -- Half a minute, so that there is something to watch.
  ('records', 'Records', 500, 30 / 3600.0, null)
on conflict (id) do nothing;

-- The paid ones ask for their award at once; the one that is not paid is followed up (the app "orders").
insert into public.purchases (id, merchant_id, user_id, amount_cents, status)
values
  ('order-1', 'books', 'a0000000-0000-4000-8000-000000000001', 2933, 'paid'),
  ('order-2', 'records', 'a0000000-0000-4000-8000-000000000001', 6334, 'paid'),
  ('order-3', 'books', 'b0000000-0000-4000-8000-000000000002', 1496, 'pending'),
  -- Too little to earn anything.
  ('order-4', 'books', 'b0000000-0000-4000-8000-000000000002', 39, 'paid'),
  -- Above 100.00: somebody has to look at it. `update order_reviews set status = 'approved'` decides.
  ('order-5', 'books', 'b0000000-0000-4000-8000-000000000002', 25000, 'paid')
on conflict (id) do nothing;

-- An award of last year: it expires in the night, or when `currency-expire` is started by hand.
insert into public.purchases (id, merchant_id, user_id, amount_cents, status, created_at)
values ('order-0', 'books', 'a0000000-0000-4000-8000-000000000001', 4000, 'paid', now() - interval '1 year')
on conflict (id) do nothing;
insert into public.wallets (user_id, balance)
values ('a0000000-0000-4000-8000-000000000001', 100)
on conflict (user_id) do nothing;
insert into public.wallet_transactions (user_id, kind, source_id, amount, created_at)
values ('a0000000-0000-4000-8000-000000000001', 'award', 'order-0', 100, now() - interval '1 year')
on conflict (kind, source_id) do nothing;
