"""A log line says where a fault happened, and nothing that an exception quotes."""

import io
import logging

from convo_project.logs import PrivateFormatter

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
