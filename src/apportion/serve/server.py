"""The server of the workbench: one page, and four questions that it asks. It keeps nothing.

Only this machine can reach it, and of the pages open in a browser here only its own: the address has a token
that every question carries, and a request that names another host is refused.
"""

from __future__ import annotations

import asyncio
import json
import secrets
import socket
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from functools import cache
from typing import Any, cast

import torch
import uvicorn
from fastapi import Depends, FastAPI, HTTPException, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import HTMLResponse, JSONResponse, Response, StreamingResponse
from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from apportion.core import memory
from apportion.core.classifier import Classifier
from apportion.core.registry import described_methods
from apportion.display.html import shell, versions
from apportion.errors import InputError
from apportion.names import INTERACTIONS, METHODS
from apportion.serve._jobs import EXAMPLE, CancelledError, Models, classes, explain, stop
from apportion.serve.messages import Catalog, Method, Said
from apportion.serve.request import MOST_BYTES, Ask, Given, read

HOSTS = ("127.0.0.1", "localhost")
THREADS = 2  # a short explanation need not wait for a long one
LISTENS = 0.2  # seconds between two looks whether anyone still listens
PATIENCE = 0.2  # seconds in which work that nobody waits for stops by itself, before it is stopped
SECONDS = 600  # that a request may take
SHARE = 0.5  # of the memory that is free when a request comes, which it may take
MOST_LEFT = 6  # pieces of work that could not be stopped, such as one operation for minutes
SAFE = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}


def application(own: Sequence[str], token: str, port: int, device: str | None = None) -> FastAPI:
    """The application on a port, for the shipped models and the user's `own`, whoever has the token."""
    models = Models(own, device)
    slots, left = asyncio.Semaphore(THREADS), set[threading.Thread]()
    waiting = 0

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        threading.Thread(target=_warm, args=(models,), daemon=True).start()
        yield
        for thread in left:
            stop(thread)

    def own_page(request: Request) -> None:
        """Refuse a request that was sent to another name, which a page of another site can bring about."""
        if request.headers.get("host") not in [f"{host}:{port}" for host in HOSTS]:
            raise HTTPException(403, "this server answers to its own address only")

    def with_token(request: Request) -> None:
        given = request.headers.get("authorization", "")
        if not secrets.compare_digest(given.encode(), f"Bearer {token}".encode()):
            raise HTTPException(401, "open the address that `apportion serve` printed, with its token")

    app = FastAPI(openapi_url=None, lifespan=lifespan, dependencies=[Depends(own_page)])
    known = [Depends(with_token)]

    app.add_middleware(_Safe)

    @app.exception_handler(InputError)
    async def refused(request: Request, error: InputError) -> Response:
        return JSONResponse({"detail": str(error)}, 400)

    @app.get("/")
    def page() -> Response:
        return HTMLResponse(shell({"kind": "workbench"}, "workbench", connect="'self'"))

    @app.get("/api/catalog", dependencies=known)
    def catalog() -> Response:
        about: Catalog = {
            "models": models.listed(),
            "methods": cast("list[Method]", described_methods(METHODS, INTERACTIONS)),
            "most_bytes": MOST_BYTES,
            "versions": versions(),
        }
        return JSONResponse(about)

    @app.get("/api/model", dependencies=known)
    def model(name: str) -> Response:
        return JSONResponse(models.described(name))

    @app.post("/api/classes", dependencies=known)
    async def ranked(request: Request) -> Response:
        given = read(await _body(request), Given)
        return JSONResponse(await run_in_threadpool(classes, given, models))

    @app.post("/api/explain", dependencies=known)
    async def explained(request: Request) -> Response:
        ask = read(await _body(request), Ask)
        return StreamingResponse(answer(ask, request), media_type="application/x-ndjson")

    async def answer(ask: Ask, request: Request) -> AsyncIterator[str]:
        """Lines as the work in a thread says them; when the page closes the connection the work stops."""
        nonlocal waiting
        loop, said, cancelled = asyncio.get_running_loop(), asyncio.Queue[Any](), threading.Event()
        end, most = loop.time() + SECONDS, memory.held() + memory.room() * SHARE

        def say(message: Said | None) -> None:
            loop.call_soon_threadsafe(said.put_nowait, message)

        def work() -> None:
            _share_cores()
            try:
                explain(ask, models, say, cancelled)
            except CancelledError:  # stopped on its last steps
                pass
            finally:
                with suppress(RuntimeError):  # the server has stopped
                    say(None)

        yield _line({"event": "waiting", "ahead": max(0, waiting - THREADS + 1)})
        waiting += 1
        thread: threading.Thread | None = None
        try:
            while not await request.is_disconnected():
                if thread is None and not slots.locked():
                    if sum(each.is_alive() for each in left) > MOST_LEFT:
                        yield _line({"event": "error", "method": None, "message": _BUSY})
                        return
                    await slots.acquire()
                    thread = threading.Thread(target=work, name="explain", daemon=True)
                    left.add(thread)
                    thread.start()
                if thread is not None and loop.time() > end:
                    yield _line({"event": "error", "method": None, "message": _TOO_LONG})
                    return
                if thread is not None and memory.held() > most:
                    yield _line({"event": "error", "method": None, "message": _TOO_MUCH})
                    return
                try:
                    message = await asyncio.wait_for(said.get(), LISTENS)
                except TimeoutError:
                    continue
                if message is None:
                    return
                yield _line(message)
        finally:
            waiting -= 1
            cancelled.set()
            if thread is not None:
                ending = asyncio.ensure_future(_free(thread, slots, left))
                endings.add(ending)
                ending.add_done_callback(endings.discard)

    endings = set[asyncio.Future[None]]()  # asyncio keeps none itself
    return app


def run(own: Sequence[str], port: int, tell: Callable[[str], None], device: str | None = None) -> None:
    """Serve until interrupted. `tell` gets the address once it can be opened."""
    sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        sock.bind(("127.0.0.1", port))
        sock.listen()
    except OSError as error:
        raise InputError(f"port {port} cannot be used ({error.strerror}); give another with --port") from None
    port, token = sock.getsockname()[1], secrets.token_urlsafe(24)
    app = application(own, token, port, device)
    tell(f"http://127.0.0.1:{port}/#token={token}")
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=1))
    with suppress(KeyboardInterrupt):  # the way to stop it
        server.run(sockets=[sock])


class _Safe:
    """Every answer has the headers, errors and pages that are not there included."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(SAFE)
            await send(message)

        await self.app(scope, receive, with_headers)


_BUSY = (
    "this machine is busy with work that could not be stopped; try again in a while, or start the server anew"
)
_TOO_MUCH = (
    "stopped, as it took half of the memory that was free; accepted: fewer samples at a time, a smaller input, or the "
    "command line"
)
_TOO_LONG = f"stopped after {SECONDS // 60} minutes; accepted: fewer samples or nodes, or the command line"


async def _free(thread: threading.Thread, slots: asyncio.Semaphore, left: set[threading.Thread]) -> None:
    """Give the place of a piece of work to the next one when it has ended; what does not end by itself is stopped, and
    what cannot be stopped has its place no longer."""
    for waited in range(round(10 * PATIENCE / 0.05)):
        if not thread.is_alive():
            break
        if waited * 0.05 >= PATIENCE:
            stop(thread)
        await asyncio.sleep(0.05)
    slots.release()
    while thread.is_alive():
        stop(thread)
        await asyncio.sleep(1)
    left.discard(thread)


async def _body(request: Request) -> bytes:
    """The body, given up as soon as it is more than a picture in base64 can be."""
    most, parts, size = MOST_BYTES * 4 // 3 + 100_000, [], 0
    async for part in request.stream():
        size += len(part)
        if size > most:
            raise HTTPException(
                413, f"more than was asked for; accepted: pictures of at most {MOST_BYTES / 1e6:.0f} MB"
            )
        parts.append(part)
    return b"".join(parts)


@cache
def _share_cores() -> None:
    """Each thread has its share: two that want all cores wait for one another at every operation."""
    torch.set_num_threads(max(1, torch.get_num_threads() // THREADS))


def _warm(models: Models) -> None:
    """The first model, and what its first explanation imports: by the time that a person has typed a sentence
    it is there."""
    name = models.names[0]
    first = models[name]
    if isinstance(first, Classifier) and first.domain == "text":
        explain(Ask(model=name, methods=["lrp"], text=EXAMPLE), models, lambda said: None, threading.Event())


def _line(message: Said) -> str:
    return json.dumps(message, ensure_ascii=False, allow_nan=False) + "\n"
