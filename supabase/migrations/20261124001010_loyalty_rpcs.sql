-- What the award and its reversal call, each as one step: reads, and postings that are right in any
-- order and any number of times.
--
-- A posting locks the purchase first (for no key update), then inserts its transaction, then updates
-- the wallet; a refund is an update of the purchase and so waits for it, or is waited for. Hence:
--   refund, then award     the award sees the refund and is skipped
--   award, then refund     the reversal sees the award and takes it back
--   reversal, then award   the reversal found nothing; the purchase is refunded, so the award is skipped
--   expiry, then refund    nothing is left of the award, so the reversal is skipped
-- Errors raised here are P0001: calling again would not help. What `comment on function` says becomes the
-- docstring of the typed call (`stepbase gen rpc`).

-- The award for a purchase, in whole points: its amount times its merchant's rate, rounded down.
-- Raises P0001 when there is no such purchase.
create function public.calc_currency_for_source(p_source_id text) returns bigint
  language plpgsql
  stable
  set search_path = ''
  as $$
declare
  v_award bigint;
begin
  select p.amount_cents * m.rate_bp / 10000
  into v_award
  from public.purchases as p
  join public.merchants as m on m.id = p.merchant_id
  where p.id = p_source_id;
  if not found then
    raise exception 'there is no purchase %', p_source_id;
  end if;
  return v_award;
end
$$;

comment on function public.calc_currency_for_source(text) is
  'The award for a purchase, in whole points.';

-- How a merchant rewards: its rate in basis points and the hours from purchase to award.
-- Raises P0001 when there is no such merchant.
create function public.get_merchant_config(
  p_merchant_id text,
  out merchant_id text,
  out rate_bp int,
  out award_delay_hours numeric
)
  language plpgsql
  stable
  set search_path = ''
  as $$
begin
  select m.id, m.rate_bp, m.award_delay_hours
  into merchant_id, rate_bp, award_delay_hours
  from public.merchants as m
  where m.id = p_merchant_id;
  if not found then
    raise exception 'there is no merchant %', p_merchant_id;
  end if;
end
$$;

comment on function public.get_merchant_config(text) is
  'How a merchant rewards.';

-- Credits the award for a purchase to its buyer's wallet, once. Returns what came of it:
--   posted   the transaction, and the balance after it
--   already  it had been posted before, and nothing changed
--   skipped  the purchase is refunded, and nothing changed
--   nothing  the amount is zero, so there is no transaction
-- Raises P0001 when there is no such purchase, it is another user's, or not paid yet (the award
-- belongs to the event of its payment, which is still to come); 22023 for a negative amount.
-- Locks the purchase, then the wallet.
create function public.post_wallet_transaction(
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
  v_purchase record;
begin
  select p.user_id, p.status
  into v_purchase
  from public.purchases as p
  where p.id = p_source_id
  for no key update;

  if not found then
    raise exception 'there is no purchase %', p_source_id;
  elsif v_purchase.user_id is distinct from p_user_id then
    raise exception 'purchase % is not of user %', p_source_id, p_user_id;
  elsif v_purchase.status = 'pending' then
    raise exception 'purchase % is not paid', p_source_id;
  elsif p_amount is null or p_amount < 0 then
    raise exception 'an award is zero or more, not %', p_amount using errcode = '22023';
  elsif v_purchase.status = 'refunded' then
    outcome := 'skipped';
    return;
  elsif p_amount = 0 then
    outcome := 'nothing';
    return;
  end if;

  select b.transaction_id, b.balance
  into transaction_id, balance
  from rewards.book_transaction(p_user_id, 'award', p_source_id, p_amount) as b;
  outcome := case when transaction_id is null then 'already' else 'posted' end;
end
$$;

comment on function public.post_wallet_transaction(uuid, text, bigint) is
  'Credit the award for a purchase, once; skipped when the purchase is refunded.';

-- Takes back what was awarded for a refunded purchase, once. Returns what came of it:
--   posted   the transaction, and the balance after it
--   already  it had been taken back before, and nothing changed
--   skipped  nothing had been awarded, and nothing will be; or the award has expired
-- Raises P0001 when there is no such purchase or it is not refunded. Locks the purchase, then the
-- wallet.
create function public.reverse_wallet_transaction(
  p_source_id text,
  out outcome text,
  out transaction_id bigint,
  out balance bigint
)
  language plpgsql
  set search_path = ''
  as $$
declare
  v_status text;
  v_award record;
begin
  select p.status into v_status from public.purchases as p where p.id = p_source_id for no key update;
  if not found then
    raise exception 'there is no purchase %', p_source_id;
  elsif v_status <> 'refunded' then
    raise exception 'purchase % is %, not refunded', p_source_id, v_status;
  end if;

  select t.user_id, t.amount
  into v_award
  from public.wallet_transactions as t
  where t.kind = 'award' and t.source_id = p_source_id
    and not exists (
      select from public.wallet_transactions as e
      where e.kind = 'expiry' and e.source_id = p_source_id
    );
  if not found then
    outcome := 'skipped';
    return;
  end if;

  select b.transaction_id, b.balance
  into transaction_id, balance
  from rewards.book_transaction(v_award.user_id, 'reversal', p_source_id, -v_award.amount) as b;
  outcome := case when transaction_id is null then 'already' else 'posted' end;
end
$$;

comment on function public.reverse_wallet_transaction(text) is
  'Take back what was awarded for a refunded purchase, once; skipped when nothing was.';

-- Enters one transaction and moves the wallet's balance by its amount; the wallet is opened when it is
-- the user's first. Returns nulls, and changes nothing, when the source has a transaction of this kind.
-- For the functions that post, which hold the purchase.
create function rewards.book_transaction(
  p_user_id uuid,
  p_kind text,
  p_source_id text,
  p_amount bigint,
  out transaction_id bigint,
  out balance bigint
)
  language plpgsql
  set search_path = ''
  as $$
begin
  insert into public.wallets (user_id) values (p_user_id) on conflict (user_id) do nothing;

  insert into public.wallet_transactions as t (user_id, kind, source_id, amount)
  values (p_user_id, p_kind, p_source_id, p_amount)
  on conflict (kind, source_id) do nothing
  returning t.id into transaction_id;

  if found then
    update public.wallets as w
    set balance = w.balance + p_amount, updated_at = stepbase.now()
    where w.user_id = p_user_id
    returning w.balance into balance;
  end if;
end
$$;
