"""The functions under measurement, served over ASGI."""

from stepbase import App, CancelOn, Step
from stepbase.hosts.asgi import asgi

app = App(
    "bench", checkpointing=False
)  # the same calls as the floor; bench/checkpoint.py has the rest


@app.function("three", on="bench/three")
async def three(step: Step) -> dict[str, int]:
    """Run three steps, one after another."""
    one = await step.run("one", lambda: 1)
    two = await step.run("two", lambda: 2)
    more = await step.run("three", lambda: 3)
    return {"sum": one + two + more}


@app.function(
    "sleeper",
    on="bench/sleeper",
    cancel_on=CancelOn("bench/refund", match="data.id"),
)
async def sleeper(step: Step) -> str:
    """Sleep for a day, unless a refund comes."""
    await step.sleep("nap", "1d")
    return "awake"


asgi_app = asgi(app)
