-- Who may do what in the loyalty domain. Nothing is granted by default (and older projects grant too
-- much by default), so everything is taken back first and then said.

revoke all on
  public.merchants, public.purchases, public.wallets, public.wallet_transactions,
  public.order_reviews, public.order_follow_ups,
  public.merchant_reports, public.merchant_rankings, public.sales_journal,
  public.customers
  from public, anon, authenticated, service_role;

grant select on public.purchases, public.wallets, public.wallet_transactions, public.customers
  to authenticated;

-- The service's own key: it writes what it is told by the shop, and the RPCs run as it.
grant select, insert, update on public.merchants, public.purchases to service_role;
grant select, insert, update on public.wallets to service_role;
grant select, insert on public.wallet_transactions to service_role;

-- What the functions' steps write themselves.
grant select, insert, update on
  public.order_reviews, public.order_follow_ups,
  public.merchant_reports, public.merchant_rankings, public.sales_journal,
  public.customers
  to service_role;

revoke all on schema rewards from public, anon, authenticated, service_role;
grant usage on schema rewards to service_role;

revoke all on function
  public.calc_currency_for_source(text),
  public.get_merchant_config(text),
  public.post_wallet_transaction(uuid, text, bigint),
  public.reverse_wallet_transaction(text),
  public.merchants_with_expiry(),
  public.awards_to_expire(text, timestamptz, bigint, int),
  public.expire_award(bigint),
  public.list_merchants(),
  public.sales_between(text, date, date, text),
  public.points_between(text, date, date, text),
  public.email_of(uuid),
  public.post_welcome_bonus(uuid, text, bigint),
  rewards.book_transaction(uuid, text, text, bigint),
  rewards.refuse_unrefund()
  from public, anon, authenticated, service_role;

grant execute on function
  public.calc_currency_for_source(text),
  public.get_merchant_config(text),
  public.post_wallet_transaction(uuid, text, bigint),
  public.reverse_wallet_transaction(text),
  public.merchants_with_expiry(),
  public.awards_to_expire(text, timestamptz, bigint, int),
  public.expire_award(bigint),
  public.list_merchants(),
  public.sales_between(text, date, date, text),
  public.points_between(text, date, date, text),
  public.email_of(uuid),
  public.post_welcome_bonus(uuid, text, bigint),
  rewards.book_transaction(uuid, text, text, bigint)
  to service_role;

notify pgrst, 'reload schema';
