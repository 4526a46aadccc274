"""The page's addresses: the document, what changes in it, its two files, and what its buttons do."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from importlib.resources import files
from urllib.parse import parse_qs

import orjson
from starlette.applications import Starlette
from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.cli.errors import CommandError
from app.cli.lanes import change, outlook
from app.kafka import KafkaUnavailableError
from app.settings import Settings
from app.web import page
from app.web.facts import Seen
from app.web.figures import Figures
from app.web.gate import COOKIE, Gate, from_here
from app.web.redrive import redrive
from app.web.watch import Watch
from schemas.control import Mode

log = logging.getLogger(__name__)

#: Bytes of a form.
LARGEST_FORM = 4_096
#: Seconds for which what was made is sent again.
FRESH = 1.0

HEADERS = {
    # Even what somebody might get into the page cannot run, load or send anything.
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src data:; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    # Not no-referrer: forms would then be sent without an origin.
    "referrer-policy": "same-origin",
    "cache-control": "no-store",
}

Handler = Callable[[Request], Awaitable[Response]]


class Site:
    """Shows what the watch and the figures know, to those whom the gate lets in."""

    def __init__(self, settings: Settings, watch: Watch, figures: Figures, gate: Gate) -> None:
        self._settings = settings
        self._watch = watch
        self._figures = figures
        self._gate = gate
        self._parts: dict[str, str] = {}
        self._made = float("-inf")

    def routes(self) -> list[Route]:
        return [
            Route("/", self.show, methods=["GET"]),
            Route("/live", self.live, methods=["GET"]),
            Route("/page.css", _file("page.css", "text/css"), methods=["GET"]),
            Route("/page.js", _file("page.js", "text/javascript"), methods=["GET"]),
            Route("/health", _health, methods=["GET"]),
            Route("/", self.log_in, methods=["POST"]),
            Route("/logout", self.log_out, methods=["POST"]),
            Route("/lanes/pause", self._button(self.pause), methods=["POST"]),
            Route("/lanes/resume", self._button(self.resume), methods=["POST"]),
            Route("/letters/redrive", self._button(self.redrive), methods=["POST"]),
        ]

    async def show(self, request: Request) -> Response:
        if not self._gate.lets_in(request.headers):
            return self._outside(request)
        return HTMLResponse(page.document(await self._live(), can_leave=self._gate.asks))

    async def live(self, request: Request) -> Response:
        if not self._gate.lets_in(request.headers):
            raise HTTPException(401, "Log in first.")
        return _json(await self._live())

    async def log_in(self, request: Request) -> Response:
        if not self._gate.asks or not from_here(request.headers):
            raise HTTPException(403, _FOREIGN)
        if not self._gate.accepts((await _form(request)).get("token", "").strip()):
            log.warning("page_login_refused: from %s", request.client.host if request.client else "unknown")
            return HTMLResponse(page.login("This is not the token."), 401)
        secure = "https" in (request.url.scheme, request.headers.get("x-forwarded-proto"))
        return RedirectResponse("./", 303, {"set-cookie": self._gate.cookie(secure=secure)})

    async def log_out(self, request: Request) -> Response:
        if not from_here(request.headers):
            raise HTTPException(403, _FOREIGN)
        return RedirectResponse("./", 303, {"set-cookie": f"{COOKIE}=; Path=/; Max-Age=0; HttpOnly; SameSite=Strict"})

    async def pause(self, form: dict[str, str]) -> str:
        return await self._steer(form.get("target", ""), Mode.PAUSED)

    async def resume(self, form: dict[str, str]) -> str:
        return await self._steer(form.get("target", ""), Mode.OPEN)

    async def redrive(self, form: dict[str, str]) -> str:
        told = await redrive(self._settings, form.get("place", ""))
        log.info("page_redrove: %s", told)
        return told

    async def _steer(self, target: str, mode: Mode) -> str:
        if target not in self._settings.quota_limits():
            raise CommandError(f"There is no lane {target:.80}.")
        told = outlook(target, mode, await change(self._settings, target, mode))
        log.info("page_steered: %s is %s", target, mode)
        return told

    def _button(self, act: Callable[[dict[str, str]], Awaitable[str]]) -> Handler:
        """What a button does, for those who may, and told as they want to hear it."""

        async def pressed(request: Request) -> Response:
            if not self._gate.may_change(request.headers):
                raise HTTPException(403, _FOREIGN)
            status = 200
            try:
                told = await act(await _form(request))
            except CommandError as error:
                status, told = 400, str(error)
            except KafkaUnavailableError as error:
                status, told = 503, str(error)
            return _told(request, told, status)

        return pressed

    def _outside(self, request: Request) -> Response:
        if self._gate.asks:
            return HTMLResponse(page.login(), 401)
        _, port = request.scope["server"]
        raise HTTPException(
            403, f"Without a token this page answers to http://127.0.0.1:{port}/ and http://localhost:{port}/."
        )

    async def _live(self) -> dict[str, str]:
        """The live parts, made once a second at most, however many are looking."""
        ledger = await self._figures.known()
        now = asyncio.get_running_loop().time()
        if now - self._made >= FRESH:
            self._parts = page.live(Seen(datetime.now(UTC), self._watch.known, ledger, self._watch.lanes))
            self._made = now
        return self._parts


_FOREIGN = "This did not come from the page itself; load the page, log in there and try again."


async def _health(_: Request) -> Response:
    """Whether the process serves; what it shows may be away."""
    return _json({"status": "ok"})


def _file(name: str, media_type: str) -> Handler:
    content = files("app.web").joinpath(name).read_bytes()

    async def sent(_: Request) -> Response:
        return Response(content, media_type=media_type)

    return sent


async def _form(request: Request) -> dict[str, str]:
    content = b""
    async for part in request.stream():
        content += part
        if len(content) > LARGEST_FORM:
            raise HTTPException(413, "The form is too large.")
    return {name: values[-1] for name, values in parse_qs(content.decode(errors="replace")).items()}


def _json(value: object, status: int = 200) -> Response:
    return Response(orjson.dumps(value, default=str), status, media_type="application/json")


def _told(request: Request, message: str, status: int) -> Response:
    """For the page's script as JSON, for a browser without one as a page."""
    if "application/json" in request.headers.get("accept", ""):
        return _json({"message": message}, status)
    back = "../" * max(request.url.path.count("/") - 1, 0) or "./"
    return HTMLResponse(page.message(message, back), status)


async def _refused(request: Request, error: Exception) -> Response:
    if isinstance(error, HTTPException):
        known = error.status_code in (401, 403, 413)
        told = error.detail if known else f"There is nothing at {request.method} {request.url.path:.200}."
        return _told(request, told, error.status_code)
    return _told(request, "The page has failed; its log says why.", 500)


class _Guarded:
    """Gives every answer the headers that keep a browser from doing more than the page needs."""

    def __init__(self, inner: ASGIApp) -> None:
        self._inner = inner

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers[name] = value
            await send(message)

        await self._inner(scope, receive, guarded)


def build_app(site: Site) -> Starlette:
    """The ASGI application."""
    return Starlette(
        routes=site.routes(),
        middleware=[Middleware(_Guarded)],
        exception_handlers=dict.fromkeys((HTTPException, Exception), _refused),
    )
