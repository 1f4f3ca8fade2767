"""The server of the page: who may come, and what it answers."""

from __future__ import annotations

import ipaddress
import os
import socket
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from composer_studio.web.limits import Limits
from composer_studio.web.served import Served

if TYPE_CHECKING:
    import uvicorn

POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:; "
    "style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; font-src 'self' data:; "
    "worker-src 'self' blob:; connect-src 'self' data: blob:; media-src 'self' blob:; "
    "frame-ancestors 'self'; base-uri 'self'; form-action 'self'"
)
"""What a browser may load for the page: nothing from elsewhere."""
STYLE = Path(__file__).with_name("page.css")
_QUIET = {"GRADIO_ANALYTICS_ENABLED": "False", "HF_HUB_DISABLE_TELEMETRY": "1"}


@dataclass(frozen=True)
class Address:
    """Where the page is, and for whom.

    Attributes:
        host, port: of the machine.
        users: (name, password) of those who may come; needed but on this machine alone.
    """

    host: str = "127.0.0.1"
    port: int = 7860
    users: tuple[tuple[str, str], ...] = ()

    def __post_init__(self) -> None:
        if not self.users and not is_local(self.host):
            raise ValueError(
                f"web: --host {self.host} opens the page to other machines. Add --auth "
                "user:password, or leave out --host."
            )

    @property
    def url(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{self.port}"


def is_local(host: str) -> bool:
    """Whether a host is this machine alone."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


@contextmanager
def server(address: Address, served: Served, limits: Limits) -> Iterator[uvicorn.Server]:
    """A server of the page, not yet running, and a folder of its own that is removed at the end.

    Raises:
        OSError: the port is taken.
    """
    with tempfile.TemporaryDirectory(prefix="composer-web-") as folder:
        place = Path(folder)
        bound = _bound(address)
        before = {name: os.environ.get(name) for name in ("GRADIO_TEMP_DIR", *_QUIET)}
        # Gradio reads the environment. The folder is that of uploads, and of what is shown.
        os.environ |= {"GRADIO_TEMP_DIR": str(place / "files"), **_QUIET}
        import uvicorn  # noqa: PLC0415  # comes with gradio

        try:
            config = uvicorn.Config(
                application(address, served, limits, place),
                log_level="warning",
                ws="none",
                timeout_graceful_shutdown=2,  # pages that are open would hold it
            )
            running = uvicorn.Server(config)
            running.run = _on(running, bound)  # type: ignore[method-assign]
            yield running
        finally:
            bound.close()
            for name, value in before.items():
                os.environ.pop(name, None)
                os.environ |= {} if value is None else {name: value}


def application(address: Address, served: Served, limits: Limits, place: Path) -> Any:
    """The page as an ASGI application."""
    import gradio as gr  # noqa: PLC0415  # takes seconds
    from fastapi import FastAPI  # noqa: PLC0415
    from starlette.middleware.trustedhost import TrustedHostMiddleware  # noqa: PLC0415

    from composer_studio.web.page import Page  # noqa: PLC0415

    application = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    application.add_middleware(_Headers)
    if is_local(address.host):  # a name that another page gives this machine is not its own
        names = ["localhost", "127.0.0.1", "[::1]", address.host]
        application.add_middleware(TrustedHostMiddleware, allowed_hosts=names)
    return gr.mount_gradio_app(
        application,
        Page(served, limits, place).blocks,
        path="/",
        server_name=address.host,
        server_port=address.port,
        auth=list(address.users) or None,
        allowed_paths=[],
        max_file_size=limits.megabytes * 2**20,
        show_error=False,
        footer_links=[],
        ssr_mode=False,
        enable_monitoring=False,
        mcp_server=False,
        pwa=False,
        head=f"<style>{STYLE.read_text()}</style>",  # css= is for components alone
        theme=gr.themes.Default(
            primary_hue="indigo",
            neutral_hue="slate",
            font=["system-ui", "sans-serif"],  # of the visitor's machine
            font_mono=["ui-monospace", "monospace"],
        ),
    )


class _Headers:
    """Adds the policy of what a browser may load to each answer."""

    def __init__(self, app: Any) -> None:
        self._app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        async def sent(message: Any) -> None:
            if message["type"] == "http.response.start":
                added = {
                    "content-security-policy": POLICY,
                    "x-content-type-options": "nosniff",
                    "referrer-policy": "no-referrer",
                }
                headers = [(k.encode(), v.encode()) for k, v in added.items()]
                message = {**message, "headers": [*message.get("headers", ()), *headers]}
            await send(message)

        await self._app(scope, receive, sent if scope["type"] == "http" else send)


def _bound(address: Address) -> socket.socket:
    """A socket of the address, bound before the page is made."""
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    bound = socket.socket(family)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        bound.bind((address.host, address.port))
    except (OSError, OverflowError) as error:
        bound.close()
        raise OSError(
            f"web: {address.host}:{address.port} cannot be used ({_reason(error)}). Choose another "
            "--port."
        ) from error
    return bound


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error)


def _on(running: uvicorn.Server, bound: socket.socket) -> Callable[..., None]:
    """The run of a server, on a socket that is bound already."""
    run = running.run
    return lambda *args, **kwargs: run(sockets=[bound])
