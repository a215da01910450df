"""The tasks that django-q2 runs. Each may run twice, and says why that is harmless."""

from __future__ import annotations

import logging
import time
from dataclasses import asdict

from django.utils import timezone

from conversations.queue import enqueue, task
from conversations.services.delivery import template_catalogue
from conversations.services.desk import giving_back, mails
from conversations.services.figures import keeping as figures
from conversations.services.history import archive as archiving
from conversations.services.history import remember
from conversations.services.jobs import sweep as lifecycle
from conversations.services.media import removals
from conversations.services.replies import chat_endings, summaries
from conversations.services.retention import erasure, retention
from conversations.services.tenants import model_listing
from conversations.services.transitions import handovers, rating_questions

log = logging.getLogger(__name__)

REMOVE_FILES_SECONDS = 300.0
TELL_SECONDS = 120.0


@task
def sweep() -> None:
    """Run the sweep and enqueue the tasks that have work. Twice does no more than once; of two at a time one works."""
    report = lifecycle.sweep(timezone.now())
    log.info("sweep: %s", {name: count for name, count in asdict(report).items() if count})
    if remember.count_pending():
        enqueue("remember_ended")
    if summaries.is_pending():
        enqueue("summarise")
    if chat_endings.is_pending():
        enqueue("settle_chats")
    if removals.pending():
        enqueue("remove_files")
    if erasure.pending():
        enqueue("erase")
    if rating_questions.is_pending():
        enqueue("ask_for_ratings")
    if figures.is_pending(timezone.now()):
        enqueue("keep_figures")


@task
def hand_over() -> None:
    """Make the hand-overs whose opening has come, and give back what waits for users who may answer no more. Each is a
    transaction that looks at its rows again: twice does no more."""
    log.info("handed over: %s", handovers.make_due(timezone.now()))
    log.info("given back: %s", giving_back.give_back_of_absent())


@task
def tell_staff() -> None:
    """E-mail staff what waits. What was told is marked, and each mail is claimed by a lease: two share the work."""
    log.info("mails sent: %s", mails.tell(timezone.now(), time.monotonic() + TELL_SECONDS))


@task
def remove_files() -> None:
    """Delete the files of messages whose rows are gone. Deleting them again finds nothing."""
    log.info("files removed: %s", removals.remove_due(timezone.now(), time.monotonic() + REMOVE_FILES_SECONDS))


@task
def settle_chats() -> None:
    """End chats at Retell. Each is claimed by a lease on its row, and ending an ended chat does nothing."""
    log.info("chats settled: %s", chat_endings.settle_due())


@task
def summarise() -> None:
    """Summarise messages that have left prompts. Each summary is claimed by a lease, so two tasks share the work."""
    log.info("summarised: %s", summaries.summarise_due())


@task
def remember_ended() -> None:
    """Put ended conversations into memory. Each is claimed by a lease on its row, so two tasks share the work."""
    log.info("remembered: %s", remember.remember_ended())


@task
def ask_for_ratings() -> None:
    """Ask about satisfaction where a conversation has ended. The row of a question is unique: twice asks once."""
    log.info("asked for ratings: %s", rating_questions.ask_due(timezone.now()))


@task
def keep_figures() -> None:
    """Count the figures of quarters of an hour that are over. Counting a quarter again gives the same rows."""
    log.info("figures kept: rows=%d", figures.keep(timezone.now()))


@task
def erase() -> None:
    """Clear global memory of people who are erased. Forgetting may be repeated."""
    log.info("erased: %s", erasure.continue_erasures(timezone.now()))


@task
def archive() -> None:
    """Archive the conversations that are due. Each batch is a statement of its own: twice does no more than once."""
    log.info("archived: %s", archiving.archive(timezone.now()))


@task
def clean_up() -> None:
    """Delete what the retention rules no longer keep. Each batch is a statement: twice does no more than once."""
    log.info("cleaned up: %s", asdict(retention.clean_up(timezone.now())))
    mails.delete_old(timezone.now())
    orphans = removals.delete_orphans(timezone.now(), time.monotonic() + REMOVE_FILES_SECONDS)
    log.info("files without a row deleted: %s", orphans)


@task
def refresh_models() -> None:
    """Read the model providers' lists of models. Reading a list again stores what it says again."""
    listings = model_listing.refresh_all(timezone.now())
    log.info("model lists: asked=%d failed=%d", len(listings), sum(bool(each.error) for each in listings))


@task
def refresh_templates() -> None:
    """Read the accounts' lists of templates. Reading a list again stores what it says again."""
    log.info("templates: accounts asked=%d", template_catalogue.refresh_all(timezone.now()))
