"""Requests that the engine makes for a function."""

from tests.official.typescript.world import World, case


@case("step.fetch")
async def the_engine_fetches(world: World) -> None:
    status, header, first, second, inside = await world.output("fetches", web=world.web.url)

    assert (status, header) == (200, "1")
    assert first == ["POST", "/one", '{"q":1}', "yes"]
    assert second == ["GET", "/two", "", None]
    assert '"/three"' in inside


@case("step.fetch")
async def a_request_that_fails_is_tried_again(world: World) -> None:
    error = await world.output("fetches-badly", web=world.web.url)

    assert error["name"] == "GatewayError" and "503" in error["message"]
    assert [asked.path for asked in world.web.asked].count("/broken") == 2


@case("step.ai.infer")
async def the_engine_asks_the_model(world: World) -> None:
    said = await world.output("infers", web=world.web.url)

    assert said == ["gpt-test", "hi", "Bearer sk-test"]


@case("step.ai.infer")
async def a_model_that_refuses_is_an_error(world: World) -> None:
    error = await world.output("infers-badly", web=world.web.url)

    assert error["name"] == "AIGatewayError" and "400" in error["message"]


@case("step.ai.wrap")
async def a_wrapped_call_is_a_step(world: World) -> None:
    assert await world.output("wraps", prompt="hm") == {"said": "hm?"}
