"""One function of fifty steps, with checkpointing off and in two sizes."""

from stepbase import App, Step
from stepbase.hosts.asgi import asgi
from stepbase.sdk.checkpointing import Checkpointing

app = App("bench")


async def fifty(step: Step) -> int:
    """Run fifty steps, one after another."""
    total = 0
    for i in range(50):
        total += await step.run("step", abs, i)
    return total


app.function("off", on="bench/off", checkpointing=False)(fifty)
app.function("buffer1", on="bench/buffer1", checkpointing=True)(fifty)
app.function("buffer10", on="bench/buffer10", checkpointing=Checkpointing(10))(fifty)

asgi_app = asgi(app)
