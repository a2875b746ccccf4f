"""`stepbase rerun`: makes runs again, wholly or from a step."""

import click

from stepbase.history import acting, asking


@click.command("rerun", short_help="Make runs again, wholly or from a step.")
@click.argument("runs", nargs=-1, required=True)
@acting.URL
@click.option("--from", "step", help="Begin at this step; the results before it are kept.")
@click.option("--input", "given", help="Other arguments for that step: a JSON list in their order.")
@asking.JSON
def command(
    runs: tuple[str, ...], url: str | None, step: str | None, given: str | None, as_json: bool
) -> None:
    """Make RUNS again, each as a run of its own with the same event. Prints the new runs' ids.

    Calls with a key= of their own are not done twice (docs/supabase.md). Exit code 1 if one was refused.
    """
    body: dict[str, object] = {}
    if step is not None:
        body = {"from_step": {"id": step}}
        if given is not None:
            body = {"from_step": {"id": step, "input": asking.json_list("--input", given)}}
    elif given is not None:
        raise click.UsageError("--input is the arguments of a step: say which with --from")
    api = acting.Api(url)
    acting.report([_rerun(api, run, body) for run in runs], as_json)


def _rerun(api: acting.Api, run: str, body: object) -> dict[str, object]:
    try:
        made = api.ask("POST", f"{acting.run_path(run)}/rerun", body)["data"]["run_id"]
    except acting.RefusedError as error:
        return {"original_run_id": run, "ok": False, "error": error.message, "text": error.message}
    return {"original_run_id": run, "ok": True, "run_id": made, "text": made}
