"""`stepbase cancel`: ends runs that go on."""

import click

from stepbase.history import acting, asking


@click.command("cancel", short_help="End runs that go on.")
@click.argument("runs", nargs=-1, required=True)
@acting.URL
@asking.JSON
def command(runs: tuple[str, ...], url: str | None, as_json: bool) -> None:
    """Cancel RUNS: no further step of them is called. Exit code 1 if one of them was not cancelled.

    A call under way goes on to its end, but what it answers is no longer heard.
    """
    api = acting.Api(url)
    acting.report([_cancel(api, run) for run in runs], as_json)


def _cancel(api: acting.Api, run: str) -> dict[str, object]:
    try:
        status = api.ask("GET", acting.run_path(run))["data"]["status"]
        if status in ("Running", "Scheduled"):
            api.ask("DELETE", acting.run_path(run))
            status = api.ask("GET", acting.run_path(run))["data"]["status"]
    except acting.RefusedError as error:
        return {"run_id": run, "ok": False, "error": error.message, "text": error.message}
    if status == "Cancelled":
        return {"run_id": run, "ok": True, "status": status, "text": f"{run} cancelled"}
    said = f"run {run} had ended: {status}"
    return {"run_id": run, "ok": False, "status": status, "error": said, "text": said}
