-- Points that are older than their merchant allows. The app "currency" asks at night which these are,
-- page by page, and has each expire by a step of its own.
--
-- What expires is the award as a whole: in this example nothing is spent. A shop that lets users spend
-- points would take what is left of an award, the oldest points being spent first.

-- The merchants whose points expire, by id.
create function public.merchants_with_expiry() returns setof text
  language sql
  stable
  set search_path = ''
  as $$
    select m.id from public.merchants as m where m.points_expire_after_days is not null order by m.id
  $$;

comment on function public.merchants_with_expiry() is 'The merchants whose points expire.';

-- The awards of a merchant that are too old at p_as_of and were neither taken back nor have expired:
-- the first p_limit of those after the transaction p_after, oldest first. Empty where the merchant has
-- no rule. A day is 24 hours here: a day of the calendar would be that of the session's time zone, and
-- shorter or longer where clocks change. Reads the merchant's purchases by purchases_of_merchant and their awards by the unique key.
create function public.awards_to_expire(
  p_merchant_id text,
  p_as_of timestamptz,
  p_after bigint default 0,
  p_limit int default 100
)
  returns table (transaction_id bigint, user_id uuid, amount bigint)
  language sql
  stable
  set search_path = ''
  as $$
    select t.id, t.user_id, t.amount
    from public.merchants as m
    join public.purchases as p on p.merchant_id = m.id
    join public.wallet_transactions as t on t.kind = 'award' and t.source_id = p.id
    where m.id = p_merchant_id
      and t.created_at < p_as_of - m.points_expire_after_days * interval '24 hours'
      and t.id > p_after
      and not exists (
        select from public.wallet_transactions as o
        where o.kind in ('reversal', 'expiry') and o.source_id = t.source_id
      )
    order by t.id
    limit p_limit
  $$;

comment on function public.awards_to_expire(text, timestamptz, bigint, int) is
  'The next awards of a merchant that are older than it allows.';

-- Takes an award out of its wallet because it has become too old, once; which awards these are is for
-- awards_to_expire to say. Returns what came of it, as the postings do:
--   posted   the transaction, and the balance after it
--   already  it had expired before, and nothing changed
--   skipped  the purchase was refunded in between, and its award taken back
-- Raises P0001 when there is no such award. Locks the purchase, then the wallet.
create function public.expire_award(
  p_transaction_id bigint,
  out outcome text,
  out transaction_id bigint,
  out balance bigint
)
  language plpgsql
  set search_path = ''
  as $$
declare
  v_award record;
begin
  select t.user_id, t.source_id, t.amount
  into v_award
  from public.wallet_transactions as t
  where t.id = p_transaction_id and t.kind = 'award';
  if not found then
    raise exception 'transaction % is no award', p_transaction_id;
  end if;

  perform from public.purchases as p where p.id = v_award.source_id for no key update;
  if exists (
    select from public.wallet_transactions as t
    where t.kind = 'reversal' and t.source_id = v_award.source_id
  ) then
    outcome := 'skipped';
    return;
  end if;

  select b.transaction_id, b.balance
  into transaction_id, balance
  from rewards.book_transaction(v_award.user_id, 'expiry', v_award.source_id, -v_award.amount) as b;
  outcome := case when transaction_id is null then 'already' else 'posted' end;
end
$$;

comment on function public.expire_award(bigint) is
  'Take an award that is too old out of its wallet, once; skipped when it was taken back.';
