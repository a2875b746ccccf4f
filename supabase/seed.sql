-- A small shop to play with: `stepbase dev` and `supabase db reset` load it into a new database.
-- Paying for a purchase is `update purchases set status = 'paid' where id = 'order-3'`.

insert into auth.users (id, email)
values
  ('a0000000-0000-4000-8000-000000000001', 'ann@shop.example'),
  ('b0000000-0000-4000-8000-000000000002', 'bob@shop.example')
on conflict (id) do nothing;

insert into public.merchants (id, name, rate_bp, award_delay_hours)
values
  ('books', 'Books', 250, 0),
  -- Half a minute, so that there is something to watch.
  ('records', 'Records', 500, 30 / 3600.0)
on conflict (id) do nothing;

-- The paid ones ask for their award at once.
insert into public.purchases (id, merchant_id, user_id, amount_cents, status)
values
  ('order-1', 'books', 'a0000000-0000-4000-8000-000000000001', 2933, 'paid'),
  ('order-2', 'records', 'a0000000-0000-4000-8000-000000000001', 6334, 'paid'),
  ('order-3', 'books', 'b0000000-0000-4000-8000-000000000002', 1496, 'pending'),
  -- Too little to earn anything.
  ('order-4', 'books', 'b0000000-0000-4000-8000-000000000002', 39, 'paid')
on conflict (id) do nothing;
