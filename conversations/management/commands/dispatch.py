"""The command `manage.py dispatch`."""

import logging
import os
import signal
from types import FrameType
from typing import Any

from django.core.management.base import BaseCommand, CommandParser

from conversations import traces
from conversations.services.desk.round_robin import RoundRobin
from conversations.services.events.sender import EventSender
from conversations.services.replies.dispatcher import Dispatcher
from conversations.services.replies.streaming_writer import CopilotWriter
from memory.language_models import choosing, transport


class Command(BaseCommand):
    """Run the dispatcher."""

    help = "Write owed replies and send queued messages, until a signal (INT or TERM) stops it."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "--patience", type=float, default=25.0, help="Seconds to wait for unfinished work after the signal."
        )

    def handle(self, *args: Any, **options: Any) -> None:
        dispatcher = Dispatcher(patience=options["patience"])

        copilot = CopilotWriter(patience=options["patience"])
        events = EventSender(patience=options["patience"])
        round_robin = RoundRobin()

        def stop(_signal: int, _frame: FrameType | None) -> None:
            dispatcher.stop()
            copilot.stop()
            events.stop()
            round_robin.stop()

        signal.signal(signal.SIGTERM, stop)
        signal.signal(signal.SIGINT, stop)
        if access := choosing.from_settings():
            transport.warm_up(access)
        copilot.start()
        events.start()
        round_robin.start()
        given_back = dispatcher.run()
        copilot.join()
        events.join()
        round_robin.join()
        if given_back:
            # Threads that still wait for a model would keep the process alive. Their claims have been released.
            traces.flush()
            logging.shutdown()
            os._exit(0)
