"""Request bodies are read whole, within their limit and their time, and only so many large ones at once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from conversations.http import bodies
from conversations.http.bodies import Bodies, BodyError

MOST = 100
CHUNKED = {"transfer-encoding": "chunked"}


async def pieces(*given: bytes, then: Any = None) -> AsyncIterator[bytes]:
    """The pieces, each of which the loop gives others a turn for, and what happens after them."""
    for piece in given:
        yield piece
        for _ in range(3):
            await asyncio.sleep(0)
    if then:
        await then()


async def never() -> None:
    await asyncio.Event().wait()


def read(*given: bytes, headers: dict[str, str], then: Any = None, most: int = MOST) -> bytes:
    return asyncio.run(take(Bodies(most), pieces(*given, then=then), headers))


async def take(those: Bodies, given: AsyncIterator[bytes], headers: dict[str, str]) -> bytes:
    """Read a body as the web application does."""
    with those.reserved(headers) as length:
        return await those.read(given, length)


def refused(*given: bytes, headers: dict[str, str], then: Any = None) -> tuple[int, str]:
    with pytest.raises(BodyError) as error:
        read(*given, headers=headers, then=then)
    return error.value.status, error.value.failure["code"]


def of_length(length: int | str) -> dict[str, str]:
    return {"content-length": str(length)}


@pytest.mark.parametrize("sizes", [(), (0,), (1,), (MOST,), (40, 60), (99, 1)])
def test_a_body_up_to_the_limit_is_read_whole(sizes: tuple[int, ...]) -> None:
    given = [bytes([65 + number]) * size for number, size in enumerate(sizes)]
    assert read(*given, headers=of_length(sum(sizes))) == b"".join(given)
    assert read(*given, headers=CHUNKED) == b"".join(given)


def test_no_more_is_read_than_was_announced() -> None:
    assert read(b"ab", b"cd", headers=of_length(4), then=never) == b"abcd"


def test_a_request_without_a_body_is_not_waited_for() -> None:
    assert asyncio.run(take(Bodies(MOST), pieces(b"unread"), {})) == b""


def test_a_body_over_the_limit_is_refused_as_soon_as_that_is_known() -> None:
    assert refused(headers=of_length(MOST + 1)) == (413, "too_large")
    assert refused(b"a" * MOST, b"a", headers=CHUNKED) == (413, "too_large")
    assert refused(b"a" * (MOST + 1), headers=of_length(MOST)) == (413, "too_large")


def test_a_body_that_ends_early_is_refused() -> None:
    assert refused(b"abc", headers=of_length(4)) == (400, "malformed")
    assert refused(headers=of_length(1)) == (400, "malformed")
    assert refused(b"abc", headers=of_length("-1")) == (400, "malformed")


def test_a_body_that_does_not_arrive_is_refused(settings: Any) -> None:
    settings.WEB_BODY_SECONDS = 0
    assert refused(headers=of_length(4), then=never) == (408, "too_slow")


def test_who_read_a_body_that_was_late_is_not_cancelled_any_more(settings: Any) -> None:
    settings.WEB_BODY_SECONDS = 0

    async def late() -> int:
        with pytest.raises(BodyError):
            await take(Bodies(MOST), pieces(then=never), of_length(4))
        task = asyncio.current_task()
        assert task
        return task.cancelling()

    assert asyncio.run(late()) == 0


def test_what_arrives_gives_the_rest_more_time(settings: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    settings.WEB_BODY_SECONDS = 0
    monkeypatch.setattr(bodies, "BYTES_PER_SECOND", 0.001)
    assert read(b"ab", b"cd", headers=of_length(4)) == b"abcd"
    monkeypatch.setattr(bodies, "BYTES_PER_SECOND", 1e12)
    assert refused(b"ab", headers=of_length(4), then=never) == (408, "too_slow")


@pytest.mark.parametrize("headers", [of_length(60), CHUNKED])
def test_only_so_many_bytes_of_large_bodies_are_held_at_once(
    monkeypatch: pytest.MonkeyPatch, headers: dict[str, str]
) -> None:
    monkeypatch.setattr(bodies, "SMALL", 10)
    monkeypatch.setattr(bodies, "MOST_HELD", 120)

    async def at_once() -> None:
        those, may_end = Bodies(60), asyncio.Event()
        held = [asyncio.create_task(take(those, pieces(b"a" * 59, then=may_end.wait), headers)) for _ in range(2)]
        await asyncio.sleep(0)
        with pytest.raises(BodyError) as busy:
            await take(those, pieces(b"a" * 11), of_length(11))
        assert (busy.value.status, busy.value.failure["code"]) == (503, "too_busy")
        assert await take(those, pieces(b"a" * 10), of_length(10)) == b"a" * 10, "a small one counts for nothing"
        may_end.set()
        await asyncio.gather(*held, return_exceptions=True)
        assert await take(those, pieces(b"a" * 60), of_length(60)) == b"a" * 60, "there is room again"

    asyncio.run(at_once())


def test_large_bodies_find_room() -> None:
    assert len(read(b"a" * 1_000_000, headers=of_length(1_000_000), most=1_000_000)) == 1_000_000
