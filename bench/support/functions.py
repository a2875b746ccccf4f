"""The function under measurement: three steps that do nothing, served over ASGI."""

from stepbase import App, Step
from stepbase.hosts.asgi import asgi

app = App("bench")


@app.function("three", on="bench/three")
async def three(step: Step) -> dict[str, int]:
    """Run three steps, one after another."""
    one = await step.run("one", lambda: 1)
    two = await step.run("two", lambda: 2)
    more = await step.run("three", lambda: 3)
    return {"sum": one + two + more}


asgi_app = asgi(app)
