"""The function that bench/load.py starts 100,000 times, served over ASGI."""

from typing import Any

from stepbase import App, Event, Step
from stepbase.hosts.asgi import asgi

app = App("load", checkpointing=False)


@app.function("load", on="load/event")
async def load(event: Event[Any], step: Step) -> int:
    """Run one step."""
    return await step.run("one", abs, event.data["n"])


asgi_app = asgi(app)
