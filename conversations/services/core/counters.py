"""The work of this process, counted for `/metrics` (Prometheus).

With PROMETHEUS_MULTIPROC_DIR the counts of several processes are in files of that folder, and whoever is asked adds
them up; `make up` and a web process set it. What waits is no count: it is read from rows (jobs/exposition.py). Labels
are few and bounded: never an id of a person, a conversation or a message.
"""

from __future__ import annotations

import os

from prometheus_client import Counter, Histogram, values

_this_process = os.getpid()


def _note_process() -> None:
    global _this_process
    _this_process = os.getpid()


# The files of counts are named after the process, which the library asks the system for at each count: a system call,
# of which an append would pay five. It changes by a fork alone.
os.register_at_fork(after_in_child=_note_process)
if "PROMETHEUS_MULTIPROC_DIR" in os.environ:
    values.ValueClass = values.MultiProcessValue(lambda: _this_process)  # type: ignore[no-untyped-call]

QUICK = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
SLOW = (0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 30, 60, 120, 300)

REQUESTS = Counter("convo_http_requests", "Answered requests.", ["route", "method", "status"])
REQUEST_SECONDS = Histogram("convo_http_request_seconds", "Time until the answer begins.", ["route"], buckets=QUICK)
BATCHES = Counter("convo_batches", "Batches of statements that were sent together.")
BATCHED = Counter("convo_batched_statements", "Statements that were sent in batches.")
DATABASE_SECONDS = Histogram(
    "convo_database_seconds",
    "Time of a statement until its rows are there: of a thread's connection, or in a batch with its waiting.",
    ["way"],
    buckets=QUICK,
)
EVENTS = Counter("convo_events", "Events that were given a position, such as messages in and out.", ["type"])
TURNS = Counter("convo_turns", "Replies that were tried, by how they ended.", ["engine", "status", "code"])
TURN_SECONDS = Histogram("convo_turn_seconds", "From the beginning of a turn to its end.", ["engine"], buckets=SLOW)
TOKENS = Counter("convo_tokens", "Tokens of language models.", ["engine", "direction"])
COST = Counter("convo_cost_dollars", "US dollars for language models, by the known prices.", ["engine"])
SENDS = Counter(
    "convo_sends", "Attempts to send a message, by outcome; code is empty for a success.", ["provider", "code"]
)
SWEEPS = Counter("convo_sweeps", "Runs of the sweep.")
SWEEP_SECONDS = Histogram("convo_sweep_seconds", "Time of a run of the sweep.", buckets=SLOW)
SWEPT = Counter("convo_swept", "What the sweep has done.", ["what"])
POSTED = Counter("convo_event_posts", "Attempts to post an event, by outcome; code is empty for a success.", ["code"])

IN_THREAD, IN_BATCH = DATABASE_SECONDS.labels("thread"), DATABASE_SECONDS.labels("batch")
