"""A rolling upgrade while people write: the old version and a newer one, with one migration more, on one database.

The newer version is a copy of this tree with a column more in the outbox, which it fills and the old one does not know.
A balancer in front asks each web process whether it is ready, as load balancers do.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings
from django.db import connection
from django.db.migrations.loader import MigrationLoader

from conversations.models import Client, Message
from tests.crash.balancer import Balancer, go_on, is_ready
from tests.crash.stage import Convo, Crowd, eventually
from tests.sizes import times

VARIABLES = {"WEB_DRAIN_SECONDS": "4", "WEB_WORKERS": "1", "LEASE_SECONDS": "15"}
MESSAGES = times(100, 1_500)  # before the upgrade, and about twice as many during it
PEOPLE, EVERY = 25, 0.5  # fifty messages a second, if the machine keeps up

AFTER = "    text = models.TextField()\n"
COLUMN = '    trial = models.CharField(max_length=20, null=True, default="newer")\n'
MIGRATION = """
from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("conversations", {last!r})]
    operations = [migrations.AddField("message", "trial", models.CharField(max_length=20, null=True))]
"""


@pytest.fixture(scope="module")
def newer_tree(tmp_path_factory: Any) -> Path:
    """The next version: this one, and a nullable column more."""
    tree = tmp_path_factory.mktemp("newer")
    for name in ("channels_out", "conversations", "convo_project", "memory", "templates"):
        shutil.copytree(settings.BASE_DIR / name, tree / name)
    for name in ("manage.py", "pyproject.toml"):
        shutil.copy2(settings.BASE_DIR / name, tree)
    (tree / "tests").symlink_to(settings.BASE_DIR / "tests")  # what starts processes
    model = tree / "conversations" / "models" / "message.py"
    code = model.read_text()
    assert AFTER in code
    model.write_text(code.replace(AFTER, AFTER + COLUMN))
    [(_, last)] = MigrationLoader(None).graph.leaf_nodes("conversations")
    (tree / "conversations" / "migrations" / "9000_trial.py").write_text(MIGRATION.format(last=last))
    return tree


def sent_by(version: str | None) -> int:
    """How many messages a version queued: the newer one fills its column."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM conversation_messages WHERE trial IS NOT DISTINCT FROM %s", [version])
        return int(cursor.fetchone()[0])


@pytest.fixture
def newer(convo: Convo, newer_tree: Path) -> Iterator[Convo]:
    with convo.of_tree(newer_tree) as newer:
        yield newer


@pytest.mark.long
@pytest.mark.timeout(900)
def test_nothing_is_lost_and_nothing_refused(convo: Convo, newer: Convo) -> None:
    # People who write as fast as that get a reply every now and then, or the brake on loops would stop them: 20 in two
    # minutes are a machine's.
    Client.objects.update(longest_wait=timedelta(seconds=15), quiet_windows={"whatsapp": 8, "sms": 8})
    old_web, old_dispatcher = convo.start_web(), convo.start_dispatcher()
    began = time.monotonic()
    with Balancer(convo, newer) as balancer, Crowd(balancer, PEOPLE, EVERY) as crowd:  # type: ignore[arg-type]
        go_on(crowd, MESSAGES)
        newer.start_web()
        go_on(crowd, MESSAGES // 4)
        assert not is_ready(newer), "a web process that lacks a migration must not serve"
        assert newer.start("migrate", "manage.py", "migrate").wait() == 0
        assert newer.start("schedules", "manage.py", "setup_schedules").wait() == 0
        go_on(crowd, MESSAGES // 4)  # the old version goes on, on the newer one's tables
        eventually(lambda: is_ready(newer), "the newer version is ready")
        newer_dispatcher = newer.start_dispatcher()
        go_on(crowd, MESSAGES)
        eventually(lambda: sent_by("newer") and balancer.taken[1], "the newer version takes its part")

        old_web.terminate()
        go_on(crowd, MESSAGES // 2)
        assert old_web.wait() == 0
        assert old_dispatcher.stop() == 0
        go_on(crowd, MESSAGES // 2)
    convo.becomes_quiet()
    said, seconds = sum(map(len, crowd.said.values())), time.monotonic() - began
    print(f"\n{said:,} messages in {seconds:.0f} s by {dict(balancer.taken)}")  # noqa: T201

    assert [answer.status_code for answer in crowd.refusals] == []
    assert crowd.interrupted == 0
    crowd.assert_heard_once_each()
    crowd.assert_answered()
    convo.assert_everything_went_once()
    assert sent_by(None)
    assert not Message.objects.exclude(status__in=["sent", "delivered", "read"]).exists()
    assert newer_dispatcher.is_alive
    for process in (*convo._started, *newer._started):
        assert "Traceback" not in process.log.read_text(), process.log.read_text()[-4_000:]
