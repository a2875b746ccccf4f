"""The functions under measurement, served over ASGI."""

from stepbase import App, CancelOn, Step
from stepbase.hosts.asgi import asgi

app = App("bench", checkpointing=False)  # the same calls as the floor
by_default = App("bench-by-default")  # as users get it: with checkpoints


async def one() -> int:
    """Do nothing."""
    return 1


async def two() -> int:
    """Do nothing."""
    return 2


async def more() -> int:
    """Do nothing."""
    return 3


@app.function("three", on="bench/three")
async def three(step: Step) -> dict[str, int]:
    """Run three steps, one after another."""
    first = await step.run("one", one)
    second = await step.run("two", two)
    third = await step.run("three", more)
    return {"sum": first + second + third}


by_default.function("three", on="bench/by-default")(three.handler)


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
by_default_app = asgi(by_default)
