"""The agent goes on whatever the server does, and what it said is on the server once, in order, when that is back."""

from __future__ import annotations

import os
import socket
import stat
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from conversations.client import ConversationSync, Settings, blocking, use
from conversations.client.courier import Courier, _couriers
from conversations.client.loops import wait_for
from conversations.models import Chunk
from convo_project.address import free_port
from tests.client.rude_proxy import ON_A_BAD_DAY, RudeProxy
from tests.crash.stage import Convo, eventually

pytestmark = pytest.mark.timeout(300)  # the first test waits for the server

SLACK = 1.0  # seconds: the machine has other things to do
SettingsOf = Callable[..., Settings]


@pytest.fixture(autouse=True)
def _no_default() -> Any:
    yield
    use(None)


def heard(phone: str) -> list[str]:
    """What is on the server of the person and the agent, in order."""
    said = Chunk.objects.filter(conversation__contact__phone=phone, role__in=["user", "ai"])
    return list(said.order_by("conversation__started_at", "position").values_list("content", flat=True))


def delivered(sync: ConversationSync) -> None:
    """Return when nothing waits."""
    assert wait_for(sync.flush(60.0)), sync.status()


def timed(work: Callable[[], Any], limit: float) -> Any:
    """What it returns, in time."""
    began = time.monotonic()
    result = work()
    assert time.monotonic() - began < limit + SLACK
    return result


@pytest.mark.parametrize("name", ON_A_BAD_DAY)
def test_whatever_comes_back_it_is_there_once(
    name: str, proxy: RudeProxy, settings_of: SettingsOf, phone: str, shop: str
) -> None:
    sync = ConversationSync(settings_of(proxy.url, timeout=3.0))
    use(sync)
    session = blocking.initialize_conversation_for_user(phone, shop)
    for number in range(3):
        proxy.fail_next(ON_A_BAD_DAY[name], times=2)
        assert timed(lambda n=number: blocking.add_message_to_conversation(session, shop, "user", str(n)), 3.0)
    delivered(sync)
    assert heard(phone) == ["0", "1", "2"]


def test_a_server_that_is_down_costs_nothing_and_loses_nothing(
    convo: Convo, settings_of: SettingsOf, phone: str, shop: str
) -> None:
    port = free_port()
    sync = ConversationSync(settings_of(f"http://127.0.0.1:{port}", timeout=3.0))
    use(sync)
    session = timed(lambda: blocking.initialize_conversation_for_user(phone, shop), 3.0)
    assert session is not None
    assert session.startswith("pending-")
    for number in range(5):
        assert timed(lambda n=number: blocking.add_message_to_conversation(session, shop, "user", str(n)), 0.5)
    assert blocking.sync_graph_state_to_api(session, shop, {"order_stage": "cart"})
    assert blocking.link_order_to_conversation(session, shop, "o1")
    assert blocking.graph_state_from_api(session, shop) == {}
    status = blocking.status()
    assert status is not None
    assert (status.waiting, status.refused, status.durable) == (8, 0, True)
    assert status.oldest_seconds > 0
    with RudeProxy(convo.base_url, port):
        delivered(sync)
        assert heard(phone) == ["0", "1", "2", "3", "4"]
        assert blocking.graph_state_from_api(session, shop)["current_order_id"] == "o1", "the handle still does"
        assert blocking.add_message_to_conversation(session, shop, "bot", "5")
        assert blocking.initialize_conversation_for_user(phone, shop) != session
    assert heard(phone)[-1] == "5"


def test_a_slow_server_holds_nobody(proxy: RudeProxy, settings_of: SettingsOf, phone: str, shop: str) -> None:
    sync = ConversationSync(settings_of(proxy.url, timeout=1.0))
    use(sync)
    session = blocking.initialize_conversation_for_user(phone, shop)
    proxy.delay = 2.5
    for number in range(3):
        assert timed(lambda n=number: blocking.add_message_to_conversation(session, shop, "user", str(n)), 1.0)
    assert timed(lambda: blocking.graph_state_from_api(session, shop), 1.0) == {}
    proxy.delay = 0.0
    delivered(sync)
    assert heard(phone) == ["0", "1", "2"]


def test_an_answer_that_drips_holds_nobody(settings_of: SettingsOf, shop: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        dripping = subprocess.Popen([sys.executable, "-c", DRIP, str(server.fileno())], pass_fds=[server.fileno()])
        try:
            use(ConversationSync(settings_of(f"http://127.0.0.1:{port}", timeout=1.0)))
            session = timed(lambda: blocking.initialize_conversation_for_user("+51999999999", shop), 1.0)
            assert session is not None
            assert timed(lambda: blocking.add_message_to_conversation(session, shop, "user", "Hello"), 1.0)
        finally:
            dripping.kill()
            dripping.wait()


DRIP = textwrap.dedent(
    """
    import socket, sys, time
    server = socket.socket(fileno=int(sys.argv[1]))
    while True:
        client, _ = server.accept()
        try:
            client.sendall(b"HTTP/1.1 200 OK\\r\\nContent-Length: 100000\\r\\n\\r\\n")
            for _ in range(600):
                client.sendall(b" ")
                time.sleep(0.1)
        except OSError:
            pass
    """
)


def test_a_new_agent_delivers_what_the_old_one_could_not(
    convo: Convo, settings_of: SettingsOf, phone: str, shop: str
) -> None:
    port = free_port()
    settings = settings_of(f"http://127.0.0.1:{port}", timeout=3.0)
    program = textwrap.dedent(
        """
        import os, sys
        from conversations.client import blocking
        phone, shop = sys.argv[1:]
        session = blocking.initialize_conversation_for_user(phone, shop)
        for number in range(3):
            assert blocking.add_message_to_conversation(session, shop, "user", str(number))
        os.kill(os.getpid(), 9)
        """
    )
    assert agent(program, settings, phone, shop) == -9
    with RudeProxy(convo.base_url, port):
        sync = ConversationSync(settings)
        use(sync)
        session = blocking.initialize_conversation_for_user(phone, shop)
        assert blocking.add_message_to_conversation(session, shop, "user", "3")
        delivered(sync)
    assert heard(phone) == ["0", "1", "2", "3"]


def test_a_forked_agent_goes_on(convo: Convo, settings_of: SettingsOf, phone: str, shop: str) -> None:
    program = textwrap.dedent(
        """
        import os, sys
        from conversations.client import blocking
        phone, shop = sys.argv[1:]
        session = blocking.initialize_conversation_for_user(phone, shop)
        child = os.fork()
        if child == 0:
            os._exit(not blocking.add_message_to_conversation(session, shop, "user", "child"))
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert blocking.add_message_to_conversation(session, shop, "user", "parent")
        assert blocking.status().waiting == 0
        """
    )
    assert agent(program, settings_of(), phone, shop) == 0
    assert heard(phone) == ["child", "parent"]


def agent(program: str, settings: Settings, *arguments: str) -> int:
    """The exit code of an agent's program with these settings."""
    variables = {
        **os.environ,
        "CONVO_API_URL": settings.api_url,
        "CONVO_API_KEY": settings.api_key,
        "CONVO_API_TIMEOUT": str(settings.timeout),
        "CONVO_OUTBOX_PATH": str(settings.outbox_path),
    }
    return subprocess.run(
        [sys.executable, "-c", program, *arguments], env=variables, timeout=60, check=False
    ).returncode


# --- the outbox -------------------------------------------------------------------------------------------------------
@pytest.fixture
def down(settings_of: SettingsOf) -> SettingsOf:
    """Settings of an agent whose server is not there."""
    port = free_port()
    return lambda **more: settings_of(f"http://127.0.0.1:{port}", timeout=3.0, **more)


def test_a_full_outbox_says_so_and_drops_nothing(down: SettingsOf, phone: str, shop: str) -> None:
    use(ConversationSync(down(outbox_limit=3)))
    session = blocking.initialize_conversation_for_user(phone, shop)
    accepted = [blocking.add_message_to_conversation(session, shop, "user", str(number)) for number in range(4)]
    assert accepted == [True, True, False, False]
    status = blocking.status()
    assert status is not None
    assert (status.waiting, status.turned_away, status.limit) == (3, 2, 3)
    assert blocking.initialize_conversation_for_user(phone, shop) is None


def test_it_is_private(down: SettingsOf, phone: str, shop: str) -> None:
    settings = down()
    use(ConversationSync(settings))
    blocking.initialize_conversation_for_user(phone, shop)
    folder = settings.outbox_path.parent
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    files = list(folder.iterdir())
    assert settings.outbox_path in files
    assert {stat.S_IMODE(each.stat().st_mode) for each in files} == {0o600}
    assert [each.name for each in files if settings.api_key.encode() in each.read_bytes()] == []


def test_what_is_no_database_is_put_aside(settings_of: SettingsOf, phone: str, shop: str) -> None:
    settings = settings_of()
    settings.outbox_path.parent.mkdir()
    settings.outbox_path.write_bytes(b"no database at all" * 1000)
    use(ConversationSync(settings))
    session = blocking.initialize_conversation_for_user(phone, shop)
    assert blocking.add_message_to_conversation(session, shop, "user", "Hello")
    assert heard(phone) == ["Hello"]
    [aside] = settings.outbox_path.parent.glob("*.broken-*")
    assert aside.read_bytes().startswith(b"no database")


def test_without_a_place_for_it_the_agent_goes_on(
    settings_of: SettingsOf, tmp_path: Path, phone: str, shop: str
) -> None:
    (tmp_path / "file").write_text("")
    use(ConversationSync(settings_of(outbox_path=tmp_path / "file" / "outbox.sqlite3")))
    session = blocking.initialize_conversation_for_user(phone, shop)
    assert blocking.add_message_to_conversation(session, shop, "user", "Hello")
    assert heard(phone) == ["Hello"]
    status = blocking.status()
    assert status is not None
    assert status.durable is False


def test_an_entry_waits_for_another_process_that_holds_its_lane(settings_of: SettingsOf, phone: str, shop: str) -> None:
    settings = settings_of()
    other = Courier(settings)
    sync = ConversationSync(settings)
    use(sync)
    session = blocking.initialize_conversation_for_user(phone, shop)
    assert session is not None
    assert other.box.lease(other.box.lane_of(session), "another process", 1.0)
    assert blocking.add_message_to_conversation(session, shop, "user", "Hello")
    assert heard(phone) == []
    delivered(sync)
    assert heard(phone) == ["Hello"]


def test_a_wrong_key_waits_for_a_right_one(settings_of: SettingsOf, phone: str, shop: str) -> None:
    use(ConversationSync(settings_of(api_key="convo_wrong")))
    session = blocking.initialize_conversation_for_user(phone, shop)
    assert blocking.add_message_to_conversation(session, shop, "user", "Hello")
    status = blocking.status()
    assert status is not None
    assert (status.waiting, status.refused) == (2, 0)
    right = ConversationSync(settings_of())
    use(right)
    blocking.add_message_to_conversation(session, shop, "user", "Again")
    eventually(lambda: heard(phone) == ["Hello", "Again"], "both are there")


# --- off --------------------------------------------------------------------------------------------------------------
def test_switched_off_every_call_does_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ENABLE_CONVERSATION_SYNC", "false")
    known = dict(_couriers)
    use(None)
    assert blocking.initialize_conversation_for_user("+51999999999", "shop") is None
    assert blocking.add_message_to_conversation(None, "shop", "user", "Hello") is False
    assert blocking.add_message_to_conversation("any", "shop", "user", "Hello") is False
    assert blocking.sync_graph_state_to_api("any", "shop", object()) is False
    assert blocking.link_order_to_conversation("any", "shop", "o1") is False
    assert blocking.end_conversation("any", "shop") is False
    assert blocking.graph_state_from_api("any", "shop") == {}
    assert blocking.status() is None
    assert list(tmp_path.iterdir()) == []
    assert known == _couriers


def test_without_settings_it_complains_once_and_does_nothing(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("CONVO_API_URL", "CARTAAI_API_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    use(ConversationSync())
    assert blocking.initialize_conversation_for_user("+51999999999", "shop") is None
    assert blocking.add_message_to_conversation("any", "shop", "user", "Hello") is False
    assert caplog.text.count("CONVO_API_URL") == 1
