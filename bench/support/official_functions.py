"""The function under measurement, written with the official Python SDK as its documentation shows."""

import inngest
import inngest.fast_api
from fastapi import FastAPI

client = inngest.Inngest(app_id="official", is_production=False)


async def one() -> int:
    """Do nothing."""
    return 1


async def two() -> int:
    """Do nothing."""
    return 2


async def more() -> int:
    """Do nothing."""
    return 3


@client.create_function(
    fn_id="three", trigger=inngest.TriggerEvent(event="bench/official"), retries=3
)
async def three(ctx: inngest.Context) -> dict[str, int]:
    """Run three steps, one after another."""
    first = await ctx.step.run("one", one)
    second = await ctx.step.run("two", two)
    third = await ctx.step.run("three", more)
    return {"sum": first + second + third}


asgi_app = FastAPI()
inngest.fast_api.serve(asgi_app, client, [three])
