"""The page as a process: it serves at once, and shows what it knows as it comes to know it."""

from __future__ import annotations

import contextlib
import logging

import uvicorn

from app.http.process import Server, is_loopback, listening
from app.settings import Settings, SettingsError
from app.web.figures import Figures
from app.web.gate import Gate
from app.web.site import Site, build_app
from app.web.watch import Watch

log = logging.getLogger(__name__)

#: Seconds that an orderly stop may take: nothing that the page does takes longer.
GRACE = 5


async def serve(settings: Settings) -> None:
    """Serve until SIGTERM or SIGINT. Raises SettingsError: no token and not on loopback, or no such address."""
    token = settings.web_token.get_secret_value() if settings.web_token else None
    if token is None and not is_loopback(settings.web_host):
        raise SettingsError(
            f"AI_WEB_TOKEN: {settings.web_host} is not loopback; the page opens there only with a token."
        )
    figures = Figures(settings)
    with listening(settings.web_host, settings.web_port, "AI_WEB") as listener:
        async with Watch(settings) as watch, contextlib.aclosing(figures):
            config = uvicorn.Config(
                build_app(Site(settings, watch, figures, Gate(token))),
                log_config=None,
                access_log=False,
                server_header=False,
                lifespan="off",
                proxy_headers=False,
                timeout_graceful_shutdown=GRACE,
            )
            log.info("page_open: http://%s:%d/", *listener.getsockname()[:2])
            await Server(config).serve([listener])
    log.info("page_closed")
