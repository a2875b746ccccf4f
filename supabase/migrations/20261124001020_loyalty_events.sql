-- What the rest of the world learns of purchases. The events' data is described in shared/rewards.

select stepbase.track(
  'public.purchases', 'currency/award.requested', $$ new.status = 'paid' $$,
  'user_id, merchant_id, source_id=id, amount=amount_cents');

select stepbase.track(
  'public.purchases', 'purchase/refunded', $$ new.status = 'refunded' $$,
  'user_id, merchant_id, source_id=id, amount=amount_cents');

-- An order that is not paid yet; the app "orders" follows it up.
select stepbase.track(
  'public.purchases', 'purchase/placed', $$ new.status = 'pending' $$,
  'user_id, merchant_id, source_id=id, amount=amount_cents');
