"""What hosts may show beside tools: resources that are kept current, prompts, and a tool for each granted peer."""

from collections.abc import Iterator
from typing import Any

import anyio
import mcp_types
import pytest
from mcp.shared.exceptions import MCPError

from tests.mcp_clients import ERAS, Agent, Pair, agent, pair_of_machines

LEGACY, MODERN = ERAS


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    """Two machines in one mesh; every test leaves their inboxes empty."""
    with pair_of_machines(tmp_path_factory.mktemp("pair")) as one:
        yield one


@pytest.mark.parametrize("era", ERAS)
async def test_inbox_peers_and_one_conversation_are_resources(pair: Pair, era: str) -> None:
    """Looking at a message in a resource neither shows it nor states a reading: the tool shows it afterwards."""
    message = pair.send(f"look at me in {era}")
    async with agent(pair.bob, "--label", "reader", era=era) as bob:
        listed = [str(one.uri) for one in (await bob.client.list_resources()).resources]
        templates = (await bob.client.list_resource_templates()).resource_templates
        inbox = await _text(bob, "mesh://inbox")
        stages = pair.stages(message)
        shown = await bob.call("mesh_inbox")
        peers = await _text(bob, "mesh://peers")
        conversation = await _text(bob, "mesh://conversation/alice.laptop")

    assert listed == ["mesh://inbox", "mesh://peers", "mesh://conversation/alice.laptop"]
    assert [one.uri_template for one in templates] == ["mesh://conversation/{peer}"]
    assert "| look at me" in inbox
    assert stages == []
    assert shown.ids == [message]
    assert "bob.desktop/reader" in peers
    assert "| look at me" in conversation


@pytest.mark.parametrize("uri", ["mesh://nothing", "mesh://conversation/nobody", "file:///etc/passwd"])
async def test_a_resource_that_does_not_exist_is_an_error(pair: Pair, uri: str) -> None:
    """There is no way from here to anything that is not the mesh's."""
    async with agent(pair.bob) as bob:
        with pytest.raises(MCPError):
            await bob.client.read_resource(uri)


async def test_a_subscriber_of_the_2025_era_is_told_of_a_message(pair: Pair) -> None:
    """`resources/subscribe`, then a notification for that resource and for no other."""
    told: list[str] = []
    arrived = anyio.Event()

    async def on_message(message: Any) -> None:
        if isinstance(message, mcp_types.ResourceUpdatedNotification):
            told.append(str(message.params.uri))
            if message.params.uri == "mesh://inbox" and len(told) > 0:
                arrived.set()

    async with agent(pair.bob, era=LEGACY, on_message=on_message) as bob:
        await bob.client.session.subscribe_resource("mesh://inbox")
        await anyio.to_thread.run_sync(pair.send, "news")
        with anyio.fail_after(30):
            await arrived.wait()
        shown = await bob.says("mesh_inbox")

    assert set(told) == {"mesh://inbox"}
    assert "| news" in shown


async def test_a_listener_of_the_2026_era_is_told_of_a_message(pair: Pair) -> None:
    """`subscriptions/listen`, then an event for the resource that it named."""
    async with agent(pair.bob, era=MODERN) as bob:
        async with bob.client.listen(resource_subscriptions=["mesh://inbox"]) as events:
            await anyio.to_thread.run_sync(pair.send, "more news")
            with anyio.fail_after(30):
                event: Any = await anext(aiter(events))
        shown = await bob.says("mesh_inbox")

    assert event.uri == "mesh://inbox"
    assert "| more news" in shown


@pytest.mark.parametrize("era", ERAS)
async def test_a_granted_peer_is_a_tool_until_it_is_blocked(pair: Pair, era: str) -> None:
    """`--peers-as-tools`: the list follows the grants, and its host is told."""
    changed = anyio.Event()

    async def on_message(message: Any) -> None:
        if isinstance(message, mcp_types.ToolListChangedNotification):
            changed.set()

    async with agent(pair.bob, "--peers-as-tools", era=era, on_message=on_message) as bob:
        before = await _tools(bob)
        if era == MODERN:
            async with bob.client.listen(tools_list_changed=True) as events:
                await anyio.to_thread.run_sync(pair.bob.ok, "grant", "alice", "ask")
                with anyio.fail_after(30):
                    await anext(aiter(events))
        else:
            await anyio.to_thread.run_sync(pair.bob.ok, "grant", "alice", "ask")
            with anyio.fail_after(30):
                await changed.wait()
        after = await _tools(bob)
        answers: list[str] = []

        async def answer() -> None:
            async with agent(pair.alice, "--label", "answerer") as alice:
                asked = await alice.call("mesh_inbox", wait_s=30)
                await alice.says("mesh_send", to="bob.desktop", reply_to=asked.ids[0], text=f"yes, {era}")

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(answer)
            answers.append(await bob.says("ask_alice_laptop", question=f"is {era} done?", timeout_s=30))
        pair.bob.ok("block", "alice")
        blocked = await _tools(bob)
        pair.bob.ok("unblock", "alice")
        pair.bob.ok("grant", "alice", "ask", "--revoke")

    assert "ask_alice_laptop" not in before
    assert "ask_alice_laptop" in after
    assert f"| yes, {era}" in answers[0]
    assert "ask_alice_laptop" not in blocked


async def test_without_the_option_there_are_six_tools(pair: Pair) -> None:
    """Each further tool costs every request of the session: nobody gets one unasked."""
    pair.bob.ok("grant", "alice", "ask")
    async with agent(pair.bob) as bob:
        found = await _tools(bob)
        refused = await bob.call("ask_alice_laptop", question="?")
    pair.bob.ok("grant", "alice", "ask", "--revoke")

    assert len(found) == 6
    assert refused.is_error


@pytest.mark.parametrize("era", ERAS)
async def test_prompts_are_filled_in(pair: Pair, era: str) -> None:
    """A prompt speaks as the user: what it is filled with is one line, and a missing part is an error."""
    async with agent(pair.bob, era=era) as bob:
        names = [one.name for one in (await bob.client.list_prompts()).prompts]
        arguments = {"peer": "alice", "text": "a{b}\n\x1b[2Jc"}
        filled: Any = (await bob.client.get_prompt("send", arguments)).messages[0].content
        with pytest.raises(MCPError, match="needs peer, text"):
            await bob.client.get_prompt("send", {})
        with pytest.raises(MCPError, match="no such prompt"):
            await bob.client.get_prompt("nothing", {})

    assert names == ["inbox", "peers", "send", "conversation"]
    assert "a{b}" in filled.text
    assert "\x1b" not in filled.text


async def _text(session: Agent, uri: str) -> str:
    content: Any = (await session.client.read_resource(uri)).contents[0]
    return str(content.text)


async def _tools(session: Agent) -> list[str]:
    return [one.name for one in (await session.client.list_tools()).tools]
