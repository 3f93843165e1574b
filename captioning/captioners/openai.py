"""Ask a model behind an endpoint that speaks OpenAI's chat completions, many questions at a time."""

import asyncio
import os
import queue
import random
import threading
import weakref
from collections.abc import Iterable, Iterator
from concurrent.futures import Future
from dataclasses import replace
from typing import Any

import aiohttp

from captioning.captioner import Answer, Ask, CaptionerError
from captioning.captioners.openai_answers import BAD_ANSWER, CONNECTION, TIMEOUT, Fault, read_answer
from captioning.captioners.openai_config import VERSION, OpenAIConfig, question

MOST_BYTES = 1 << 20
"""Of an answer."""
LONGEST_WAIT_S = 60.0
"""Before a try that the server did not ask to wait for."""
MOST_FAILED = 64
"""Questions in a row, and four times as many as are under way, after which a server that answers none is given up."""


class Endpoint:
    """A captioner that asks a server. What fails for good is answered with a reason; what may pass is asked again, with
    a growing pause or the one that the server asks for, until `tries` or `deadline_s` are used up.

    Requests run in a thread of their own, so that answers come in while the caller writes; it ends with the captioner.
    Redirects are not followed and proxies of the environment not used: pictures and the key go to `base_url` alone.
    """

    version = VERSION

    def __init__(self, name: str, config: OpenAIConfig) -> None:
        self.name, self.config = name, config
        self.model, self.revision = config.model, config.revision or config.model
        self._key = _key(config)
        self._failed = 0
        self._fatal: CaptionerError | None = None
        self._loop = asyncio.new_event_loop()
        threading.Thread(target=self._loop.run_forever, name=f"endpoint-{name}", daemon=True).start()
        self._session = asyncio.run_coroutine_threadsafe(_session(config, self._key), self._loop).result()
        self.close = weakref.finalize(self, _end, self._loop, self._session)

    def answers(self, asks: Iterable[Ask]) -> Iterator[Answer]:
        """Yield an answer for every question as it comes. Raises CaptionerError where none can be had, once what is
        under way has been answered: it is paid for."""
        drawn, done = iter(asks), queue.SimpleQueue[Future[tuple[Answer, Fault | None]]]()
        under_way: set[Future[tuple[Answer, Fault | None]]] = set()
        ask: Ask | None
        more, self._fatal = True, None
        try:
            while True:
                while more and self._fatal is None and len(under_way) < self.config.concurrency and done.empty():
                    if (ask := next(drawn, None)) is None:
                        more = False
                    else:
                        future = asyncio.run_coroutine_threadsafe(self._answer(ask), self._loop)
                        under_way.add(future)
                        future.add_done_callback(done.put)
                if not under_way:
                    break
                future = done.get()
                under_way.discard(future)
                try:
                    answer, fault = future.result()
                    self._count(fault)
                except CaptionerError as error:
                    self._fatal = self._fatal or error
                else:
                    yield answer
            if self._fatal is not None:
                raise self._fatal
        finally:
            for future in under_way:
                future.cancel()

    def _count(self, fault: Fault | None) -> None:
        """Raise CaptionerError after many questions in a row to which nothing came."""
        self._failed = 0 if fault is None or fault.alive else self._failed + 1
        if self._failed >= max(MOST_FAILED, 4 * self.config.concurrency):
            said = self._hidden(fault.said if fault else "")
            raise CaptionerError(
                f"the server at {self.config.base_url} answered none of {self._failed} questions in a row; the last"
                f" time: {said}. What was answered is kept; a rerun asks for the rest"
            )

    async def _answer(self, ask: Ask) -> tuple[Answer, Fault | None]:
        """Return the answer, and the last fault where there is none."""
        clock = self._loop.time
        body, until = question(self.config, ask), clock() + self.config.deadline_s
        fault = Fault(TIMEOUT, "no time for a single try")
        for number in range(self.config.tries):
            wait = _pause(self.config.backoff_s, number, fault.wait_s)
            if clock() + wait >= until or (number and self._fatal is not None):
                break
            await asyncio.sleep(wait)
            outcome = await self._try(ask, body, min(self.config.try_s, until - clock()))
            if isinstance(outcome, Answer):
                return outcome, None
            fault = outcome
            if not fault.passing:
                break
        return Answer(ask.uid, reason=fault.reason), fault

    async def _try(self, ask: Ask, body: bytes, seconds: float) -> Answer | Fault:
        try:
            async with asyncio.timeout(seconds):
                url = f"{self.config.base_url}/chat/completions"
                async with self._session.post(url, data=body, allow_redirects=False) as response:
                    content = await _read(response)
        except TimeoutError:
            return Fault(TIMEOUT, f"no answer within {seconds:.0f} s")
        except aiohttp.ClientPayloadError as error:
            return Fault(BAD_ANSWER, f"the body broke off ({_what(error)})")
        except (aiohttp.ClientError, OSError, ValueError) as error:
            return Fault(CONNECTION, self._hidden(_what(error)))
        try:
            read = read_answer(self.config, ask.uid, response.status, response.headers, content)
            return replace(read, text=self._hidden(read.text)) if isinstance(read, Answer) else read
        except CaptionerError as error:
            raise CaptionerError(f"caption.{self.name}.{self._hidden(str(error))}") from None

    def _hidden(self, text: str) -> str:
        return text.replace(self._key, "…") if self._key else text


def _key(config: OpenAIConfig) -> str:
    """Return the key of the environment. Raises CaptionerError where it is missing or is none."""
    if config.api_key_env is None:
        return ""
    key = os.environ.get(config.api_key_env, "").strip()
    if not key:
        raise CaptionerError(f"api_key_env: the environment variable {config.api_key_env} is not set here")
    if not (key.isascii() and key.isprintable()):
        raise CaptionerError(f"api_key_env: {config.api_key_env} holds letters that no header takes")
    return key


async def _session(config: OpenAIConfig, key: str) -> aiohttp.ClientSession:
    headers = {"Content-Type": "application/json", "Accept": "application/json", "Accept-Encoding": "identity"}
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=config.concurrency),
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=30),
        headers={**headers, **({"Authorization": f"Bearer {key}"} if key else {})},
        cookie_jar=aiohttp.DummyCookieJar(),
        auto_decompress=False,
    )


async def _read(response: aiohttp.ClientResponse) -> bytes | None:
    """Return a body, or nothing where it is larger than MOST_BYTES."""
    body = bytearray()
    async for piece in response.content.iter_chunked(1 << 16):
        body += piece
        if len(body) > MOST_BYTES:
            response.close()
            return None
    return bytes(body)


def _end(loop: asyncio.AbstractEventLoop, session: Any) -> None:
    async def ended() -> None:
        await session.close()
        loop.stop()

    asyncio.run_coroutine_threadsafe(ended(), loop)


def _pause(first_s: float, number: int, asked_s: float | None) -> float:
    """Return the seconds before a try: none before the first, then what the server asks for, else a draw around the
    doubled pause, so that many do not come back at once."""
    if number == 0:
        return 0.0
    drawn = random.uniform(0.5, 1.0) * first_s * 2.0 ** min(number - 1, 30)
    return min(drawn, LONGEST_WAIT_S) if asked_s is None else max(asked_s, 0.1 * drawn)


def _what(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
