"""The sabotage suite's switches: one mechanism each, taken out of the migrations.

A test that cannot fail proves nothing. Each switch removes one thing that promises rest on, and names
the test that must fail without it. `STEPBASE_SABOTAGE=<switch>` makes the test databases so.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatch
from typing import Final


@dataclass(frozen=True)
class Patch:
    """What a switch changes, and who must notice.

    Attributes:
        file: Pattern of the one migration it changes.
        text: What is there; it must be there exactly once, so that a switch cannot rot.
        instead: What stands there when the mechanism is off.
        test: The test that must fail, as pytest names it.
    """

    file: str
    text: str
    instead: str
    test: str


PATCHES: Final[dict[str, Patch]] = {
    "ledger_insert": Patch(
        file="*_ledger.sql",
        text="""\
    v_result := stepbase.ledger_take(p_key, p_run_id, p_step, p_fn, p_hashes);
""",
        instead="",
        test="tests/sql/test_ledger.py::test_the_same_key_twice_is_one_effect_and_the_same_answer",
    ),
    "outbox_ack": Patch(
        file="*_outbox.sql",
        text="where o.id = any (p_ids) and o.token = p_token returning 1",
        instead="where false returning 1",
        test="tests/sql/test_outbox.py::test_an_acked_event_is_never_taken_again",
    ),
    "relay_life": Patch(
        file="*_relay_pg_net.sql",
        text="delete from stepbase.relay_requests as r where r.life <> v_life returning r.*",
        instead="delete from stepbase.relay_requests as r where false returning r.*",
        test="tests/relay/test_pg_net.py"
        "::test_answers_to_numbers_of_an_earlier_life_are_not_taken_for_ours",
    ),
    "lease_fence": Patch(
        file="*_settle.sql",
        text="""\
          and q.owner = p_owner and q.gen = u.gen
        returning u.i::int
    )
    select coalesce(array_agg(kept.i), '{}') into v_mine from kept;
""",
        instead="""\
        returning u.i::int
    )
    select coalesce(array_agg(kept.i), '{}') into v_mine from kept;
""",
        test="tests/engine/test_sql_settle.py"
        "::test_a_settle_that_meets_a_takeover_in_flight_waits_and_loses",
    ),
    "key_claim": Patch(
        file="*_lanes.sql",
        text="  return pg_catalog.pg_try_advisory_xact_lock(1937006958, pg_catalog.hashtext(p_key));\n",
        instead="  return true;\n",
        test="tests/engine/test_sql_lanes.py::test_a_key_that_another_engine_counts_is_passed_over",
    ),
    "places": Patch(
        file="*_lanes.sql",
        text="            place = coalesce(q.place, nullif(v_run, ''))\n",
        instead="            place = q.place\n",
        test="tests/engine/test_sql_places.py::test_a_run_that_waits_has_no_place_and_its_cancelling_frees_none",
    ),
    "event_dedupe": Patch(
        file="*_ingest.sql",
        text="        where d.until <= v_now or d.run_id = excluded.run_id\n",
        instead="",
        test="tests/engine/test_sql_ingest.py"
        "::test_the_senders_id_starts_a_function_once_in_24_hours",
    ),
    "look_back_lock": Patch(
        file="*_look_back.sql",
        text="    perform pg_advisory_xact_lock(hashtextextended(v_name, 8));\n",
        instead="    null;\n",
        test="tests/engine/test_sql_look_back.py"
        "::test_no_event_is_lost_or_ends_a_wait_twice[exact-later]",
    ),
    "sender_rate": Patch(
        file="*_accept.sql",
        text="    where greatest(r.tat, v_now) + v_cost <= v_now + v_most\n",
        instead="",
        test="tests/sql/test_accept.py::test_several_at_once_get_exactly_the_allowance",
    ),
    "report_owner": Patch(
        file="*_record.sql",
        text="  if v_recorded is null then\n",
        instead="  if v_recorded is null and false then\n",
        test="tests/monitor/test_reports.py::test_no_report_changes_a_run_of_an_engine",
    ),
    "report_once": Patch(
        file="*_record.sql",
        text="        select from stepbase.attempts x where x.run_id = p_run and x.report = p ->> 'report'\n",
        instead="        select from stepbase.attempts x where false\n",
        test="tests/monitor/test_reports.py::test_reports_may_come_twice_late_and_in_any_order",
    ),
    "forget_live": Patch(
        file="*_forget.sql",
        text="from stepbase.runs r where r.event_id = e.id and r.ended_at is null)",
        instead="from stepbase.runs r where false)",
        test="tests/monitor/test_forget.py::test_what_is_of_a_user_goes_and_the_rest_stays",
    ),
    "purchase_lock": Patch(
        file="*_loyalty_rpcs.sql",
        text="""\
  where p.id = p_source_id
  for no key update;
""",
        instead="""\
  where p.id = p_source_id;
""",
        test="tests/sql/test_order.py::test_an_award_waits_for_a_refund_that_is_on_its_way",
    ),
}


def apply(name: str, migrations: Mapping[str, str]) -> dict[str, str]:
    """Return the migrations (file name → SQL) with one mechanism taken out.

    Raises:
        LookupError: There is no such switch, or what it takes out is not there exactly once.
    """
    if name not in PATCHES:
        raise LookupError(f"there is no switch {name!r}; there are {', '.join(PATCHES)}")
    patch = PATCHES[name]
    found = [
        file
        for file, sql in migrations.items()
        if fnmatch(file, patch.file)
        for _ in range(sql.count(patch.text))
    ]
    if len(found) != 1:
        raise LookupError(
            f"switch {name}: its text is in {patch.file} {len(found)} times, not once"
        )
    [file] = found
    return {**migrations, file: migrations[file].replace(patch.text, patch.instead)}
