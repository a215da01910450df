"""A log line says where a fault happened, and nothing that an exception quotes."""

import io
import json
import logging
import threading

from conversations import log_context
from convo_project.logs import JsonFormatter, PrivateFormatter

PHONE = "+51" + "9" * 9


def test_what_an_exception_says_stays_out():
    out = io.StringIO()
    handler = logging.StreamHandler(out)
    handler.setFormatter(PrivateFormatter("%(levelname)s %(message)s"))
    logger = logging.Logger("test")
    logger.addHandler(handler)

    def fail(text):
        try:
            raise ValueError(f"cannot read: {text}")
        except ValueError as error:
            raise RuntimeError(f"gave up on {text}") from error

    try:
        fail(PHONE)
    except RuntimeError:
        logger.exception("it failed: id=%s", 7)

    line = out.getvalue()
    assert "it failed: id=7" in line
    assert "RuntimeError" in line
    assert "test_logs.py" in line
    assert PHONE not in line


def test_what_a_stranger_can_cause_at_will_is_one_line():
    out = io.StringIO()
    handler = logging.StreamHandler(out)
    handler.setFormatter(PrivateFormatter("%(levelname)s %(message)s"))
    logger = logging.Logger("django.security.RequestDataTooBig")
    logger.addHandler(handler)
    try:
        raise ValueError
    except ValueError as error:
        logger.exception("Request body exceeded the limit.", exc_info=error)
    assert out.getvalue() == "ERROR Request body exceeded the limit.\n"


def logged_as_json(log):
    """The lines that `log` writes to the logger that it is given, as objects."""
    out = io.StringIO()
    handler = logging.StreamHandler(out)
    handler.setFormatter(JsonFormatter())
    logger = logging.Logger("test")
    logger.addHandler(handler)
    log(logger)
    return [json.loads(line) for line in out.getvalue().splitlines()]


def test_a_line_of_json_has_the_values_it_names_and_the_ids_of_the_work():
    def log(logger):
        log_context.set_request("r-1")
        with log_context.about(conversation="c-1", turn="t-1"):
            logger.warning("turn failed: attempt=%s code=%s", 2, "timeout")
        logger.warning("the database is away: trying again in %.1f s", 0.5)
        other = threading.Thread(target=lambda: logger.warning("elsewhere"))
        other.start()
        other.join()

    failed, away, elsewhere = logged_as_json(log)
    assert failed["message"] == "turn failed: attempt=2 code=timeout"
    assert (failed["attempt"], failed["code"]) == (2, "timeout")
    assert (failed["request"], failed["conversation"], failed["turn"]) == ("r-1", "c-1", "t-1")
    assert (failed["level"], failed["logger"]) == ("WARNING", "test")
    assert "turn" not in away
    assert away["request"] == "r-1"
    assert "request" not in elsewhere


def test_a_line_of_json_says_nothing_that_an_exception_says():
    def log(logger):
        try:
            raise ValueError(PHONE)
        except ValueError:
            logger.exception("it failed: card=%s", "4111 1111 1111 1111")

    [line] = logged_as_json(log)
    assert line["exception"].endswith("ValueError")
    assert PHONE not in str(line)
    assert "4111" not in str(line)
