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
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from functools import cache
from typing import Any, cast

import torch
import uvicorn
from fastapi import Depends, FastAPI, HTTPException, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import HTMLResponse, JSONResponse, Response, StreamingResponse

from apportion.core.registry import described_methods
from apportion.display.html import shell, versions
from apportion.errors import InputError
from apportion.names import INTERACTIONS, METHODS
from apportion.serve._jobs import EXAMPLE, Models, classes, explain
from apportion.serve.messages import Catalog, Method, Said
from apportion.serve.request import MOST_BYTES, Ask, Given, read

HOSTS = ("127.0.0.1", "localhost")
THREADS = 2  # a short explanation need not wait for a long one
LISTENS = 0.2  # seconds between two looks whether anyone still listens
SAFE = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}


def application(own: Sequence[str], token: str, port: int) -> FastAPI:
    """The application on a port, for the shipped models and the user's `own`, whoever has the token."""
    models = Models(own)
    threads = ThreadPoolExecutor(THREADS, "explain", _share_cores)
    waiting = 0

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        threads.submit(_warm, models)
        yield
        threads.shutdown(wait=False, cancel_futures=True)

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

    @app.exception_handler(InputError)
    async def refused(request: Request, error: InputError) -> Response:
        return JSONResponse({"detail": str(error)}, 400, SAFE)

    @app.get("/")
    def page() -> Response:
        return HTMLResponse(shell({"kind": "workbench"}, "workbench", connect="'self'"), headers=SAFE)

    @app.get("/api/catalog", dependencies=known)
    def catalog() -> Response:
        about: Catalog = {
            "models": models.listed(),
            "methods": cast("list[Method]", described_methods(METHODS, INTERACTIONS)),
            "most_bytes": MOST_BYTES,
            "versions": versions(),
        }
        return JSONResponse(about, headers=SAFE)

    @app.get("/api/model", dependencies=known)
    def model(name: str) -> Response:
        return JSONResponse(models.described(name), headers=SAFE)

    @app.post("/api/classes", dependencies=known)
    async def ranked(request: Request) -> Response:
        given = read(await _body(request), Given)
        return JSONResponse(await run_in_threadpool(classes, given, models), headers=SAFE)

    @app.post("/api/explain", dependencies=known)
    async def explained(request: Request) -> Response:
        ask = read(await _body(request), Ask)
        return StreamingResponse(answer(ask, request), media_type="application/x-ndjson", headers=SAFE)

    async def answer(ask: Ask, request: Request) -> AsyncIterator[str]:
        """Lines as the work in a thread says them; when the page closes the connection the work stops."""
        nonlocal waiting
        loop, said, cancelled = asyncio.get_running_loop(), asyncio.Queue[Any](), threading.Event()

        def say(message: Said | None) -> None:
            loop.call_soon_threadsafe(said.put_nowait, message)

        def work() -> None:
            try:
                explain(ask, models, say, cancelled)
            finally:
                say(None)

        yield _line({"event": "waiting", "ahead": max(0, waiting - THREADS + 1)})
        waiting += 1
        future = threads.submit(work)
        try:
            while not await request.is_disconnected():
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
            future.cancel()

    return app


def run(own: Sequence[str], port: int, tell: Callable[[str], None]) -> None:
    """Serve until interrupted. `tell` gets the address once it can be opened."""
    sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        sock.bind(("127.0.0.1", port))
        sock.listen()
    except OSError as error:
        raise InputError(f"port {port} cannot be used ({error.strerror}); give another with --port") from None
    port, token = sock.getsockname()[1], secrets.token_urlsafe(24)
    app = application(own, token, port)
    tell(f"http://127.0.0.1:{port}/#token={token}")
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=1))
    with suppress(KeyboardInterrupt):  # the way to stop it
        server.run(sockets=[sock])


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
    if models[name].domain == "text":
        explain(Ask(model=name, methods=["lrp"], text=EXAMPLE), models, lambda said: None, threading.Event())


def _line(message: Said) -> str:
    return json.dumps(message, ensure_ascii=False, allow_nan=False) + "\n"
