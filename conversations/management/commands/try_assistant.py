"""The command `manage.py try_assistant`."""

from itertools import chain
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from conversations.management.output import refusals
from conversations.services.replies import trying
from conversations.services.replies.trying import Trial
from conversations.services.tenants import setup


class Command(BaseCommand):
    """Try an assistant's models."""

    help = (
        "Ask the models of an assistant for everything that a reply needs: text, tools, a stream, a summary, a long"
        " prompt. Print what was seen and what to change. The provider is paid for the answers."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--client", required=True, help="The client's sub-domain.")
        parser.add_argument("--assistant", default="assistant", help="The assistant's key. Default: assistant.")
        parser.add_argument("--picture", action="store_true", help="Show the models a picture as well.")
        parser.add_argument(
            "--voice", type=Path, metavar="FILE", help="Have the client's provider write down this recording as well."
        )
        parser.add_argument("--json", action="store_true", help="Print one line of JSON for each result.")

    def handle(self, *args: Any, **options: Any) -> None:
        with refusals():
            client = setup.get_client(options["client"])
            assistant = setup.get_assistant(client, options["assistant"])
        recording = _read(options["voice"]) if options["voice"] else b""
        checks = trying.OF_ASSISTANTS if options["picture"] else trying.USUAL
        failed = 0
        trials = trying.try_assistant(assistant, checks)
        if options["voice"]:
            trials = chain(trials, (trying.try_transcription(client, recording, options["voice"].name),))
        for trial in trials:
            failed += not trial.passed
            self.stdout.write(trying.as_json(trial) if options["json"] else _line(trial))
            self.stdout.flush()
        if failed:
            raise CommandError(f"{failed} of the checks failed.")


def _read(path: Path) -> bytes:
    """Return the file's content. Raises CommandError."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise CommandError(f"{path} cannot be read: {error.strerror}.") from None


def _line(trial: Trial) -> str:
    lines = [
        f"{'ok    ' if trial.passed else 'FAILED'}  {trial.title}, {trial.model or 'no model'} ({trial.seconds} s)"
    ]
    lines += [f"        {text}" for text in (trial.seen, trial.change and f"To do: {trial.change}") if text]
    lines += [f"        Learned: {fact}" for fact in trial.learned]
    return "\n".join(lines)
