"""The annotation page's server: 127.0.0.1 only, and only for those who know the token in its address."""

from __future__ import annotations

import errno
import io
import os
import secrets
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import uvicorn
from fastapi import Body, FastAPI, HTTPException, Request, Response
from fastapi.responses import JSONResponse, PlainTextResponse

from data.decoding import decode_upright
from data.stopping import INTERRUPTED
from experiments.annotate.session import Answer, Session

HOST, PORT = "127.0.0.1", 8765
HOSTS = (HOST, "localhost")
"""Names under which this machine reaches itself, also at the other end of an SSH tunnel."""
SIZES = {"large": 1600, "small": 360}
"""Longer side, in pixels, of the pictures that are sent."""
FILES = {
    "": ("page.html", "text/html"),
    "page.css": ("page.css", "text/css"),
    "page.js": ("page.js", "text/javascript"),
}
POLICY = (
    "default-src 'none'; img-src 'self' data:; style-src 'self'; script-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",  # the address holds the token
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
}


def make_app(session: Session, token: str) -> FastAPI:
    """The web application; every address of it begins with /TOKEN/."""
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)

    @app.middleware("http")
    async def guard(request: Request, call_next: Callable[[Request], Any]) -> Response:
        complaint = refusal(request.headers.get("host", ""), request.headers.get("origin"), request.url.path, token)
        response: Response = PlainTextResponse(complaint, 403) if complaint else await call_next(request)
        response.headers.setdefault("Cache-Control", "no-store")
        response.headers.update(HEADERS)
        return response

    @app.get(f"/{token}/state")
    def state() -> dict[str, Any]:
        return session.view()

    @app.get(f"/{token}/images/{{number}}")
    def image(number: int, size: str = "large") -> Response:
        try:
            content = picture(session.path(number), SIZES.get(size, SIZES["large"]))
        except ValueError as error:
            raise HTTPException(404, str(error)) from None
        # The address is one of this start of the program: nothing outlives it in the browser's memory of pages.
        return Response(content, media_type="image/jpeg", headers={"Cache-Control": "private, max-age=3600"})

    @app.post(f"/{token}/answers")
    def answers(given: Annotated[list[Answer], Body(max_length=1000)]) -> dict[str, Any]:
        session.record(given)
        return {"kept": len(given)}

    @app.post(f"/{token}/next")
    def following(after: Annotated[int, Body(embed=True)]) -> dict[str, Any]:
        session.advance(after)
        return session.progress()

    @app.get(f"/{token}/progress")
    def progress() -> dict[str, Any]:
        return session.progress()

    @app.get(f"/{token}/{{name:path}}")
    def file(name: str) -> Response:
        if name not in FILES:
            raise HTTPException(404, "there is no such page")
        file_name, media_type = FILES[name]
        return Response(Path(__file__).with_name(file_name).read_bytes(), media_type=media_type)

    @app.exception_handler(ValueError)
    async def bad_input(_: Request, error: Exception) -> Response:
        return JSONResponse({"detail": str(error)}, 409)

    @app.exception_handler(OSError)
    async def no_disk(_: Request, error: Exception) -> Response:
        return JSONResponse({"detail": f"nothing was saved: {error}"}, 507)

    return app


def refusal(host: str, origin: str | None, path: str, token: str) -> str | None:
    """Why a request is refused; None if it is not.

    The host's name is checked because any website may give a name of its own to 127.0.0.1, and the origin because any
    website may send requests to it. Neither knows the token: these are second locks.
    """
    if host.rpartition(":")[0] not in HOSTS and host not in HOSTS:
        return "this page answers only at 127.0.0.1 and localhost"
    if origin is not None and origin != f"http://{host}":
        return "this page answers no other page"
    if not secrets.compare_digest(path.lstrip("/").partition("/")[0].encode(), token.encode()):
        return "this address belongs to another start of the program; open the one that it printed last"
    return None


def picture(path: Path, longest: int) -> bytes:
    """A JPEG of an image, upright, its longer side at most `longest` pixels. Raises ValueError for a damaged file."""
    content = io.BytesIO()
    decode_upright(path, longest).save(content, "JPEG", quality=88)
    return content.getvalue()


def listen(port: int) -> socket.socket:
    """A socket on 127.0.0.1, at any free port for 0. Raises ValueError if the port is taken or not allowed."""
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # else a restart must wait for old connections
    try:
        listener.bind((HOST, port))
        listener.listen()
    except (OSError, OverflowError) as error:
        listener.close()
        if isinstance(error, OSError) and error.errno == errno.EADDRINUSE:
            raise ValueError(
                f"port {port} of this machine is taken, perhaps by another page; end that, or choose another --port"
            ) from None
        raise ValueError(f"port {port} of this machine cannot be used ({error}); choose another --port") from None
    return listener


def make_server(session: Session, token: str) -> uvicorn.Server:
    """The server of the page, to be run on a socket."""
    config = uvicorn.Config(
        make_app(session, token), http="h11", loop="asyncio", ws="none", lifespan="off", log_level="critical",
        access_log=False, server_header=False, timeout_graceful_shutdown=2,
    )  # fmt: skip
    return uvicorn.Server(config)


def serve(session: Session, listener: socket.socket) -> int:
    """Serve the page until Ctrl-C, and print its address. Returns the exit code."""
    token = secrets.token_urlsafe(16)
    port = listener.getsockname()[1]
    print(f"label in a browser: http://{HOST}:{port}/{token}/", flush=True)
    print(
        f"every answer is saved at once; Ctrl-C ends the page (from another machine: ssh -L {port}:{HOST}:{port} HOST)",
        file=sys.stderr,
        flush=True,
    )
    try:
        make_server(session, token).run(sockets=[listener])
    except KeyboardInterrupt:
        if session.progress()["ranking"]:
            print("\nevery answer is saved; the next batch was being ranked, and will be again", file=sys.stderr)
            sys.stderr.flush()
            os._exit(INTERRUPTED)  # a ranking cannot be stopped in its middle, and all files are whole at any time
        print(f"\n{session.summary()}; the same command goes on from here", file=sys.stderr)
        return INTERRUPTED
    return 0
