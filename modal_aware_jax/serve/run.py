"""The server itself: one process of uvicorn over a service."""

import logging
import signal
import socket

from modal_aware_jax.serve.app import make_app
from modal_aware_jax.serve.guard import LEAST_TOKEN, LOCAL
from modal_aware_jax.serve.service import Service

MOST_CONNECTIONS = 1000


def check_place(host: str, token: str | None) -> None:
    """Refuses to be reachable from elsewhere without a token, and a short one."""
    if host not in LOCAL and not token:
        raise ValueError(
            f"--host={host} lets other machines in: give a token, --token=TEXT of "
            f"{LEAST_TOKEN} characters or more, which they must bring."
        )
    whole = token and token.isascii() and token.isprintable() and token == token.strip()
    if token and (len(token) < LEAST_TOKEN or not whole):
        raise ValueError(
            f"--token: expected {LEAST_TOKEN} ASCII characters or more, got "
            f"{len(token)}{', not all of them printable' if not whole else ''}. "
            'Make one: python -c "import secrets; '
            'print(secrets.token_urlsafe())"'
        )


def open_socket(host: str, port: int) -> socket.socket:
    """A listening socket, so that a port in use is told before anything is encoded."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((host, port))
    except (OSError, OverflowError, TypeError, UnicodeError) as error:
        listening.close()
        reason = getattr(error, "strerror", None) or error
        raise ValueError(
            f"--host={host} --port={port} cannot be opened ({reason}). Take a host of "
            "this machine, and another port up to 65535, or --port=0 for any."
        ) from error
    return listening


def serve(service: Service, listening: socket.socket, token: str | None = None) -> None:
    """Serves until SIGINT or SIGTERM; then finishes what was asked and saves.

    Args:
      service: closed at the end.
      listening: of `open_socket`.
      token: that requests must bring, or None.
    """
    import uvicorn

    from modal_aware_jax.serve.connection import Connection

    host, port = listening.getsockname()[:2]
    host = f"[{host}]" if ":" in host else host
    listening.listen(2048)  # who reads the next line can connect
    print(f"Serving {len(service.index):,} items at http://{host}:{port}/", flush=True)
    settings = uvicorn.Config(
        make_app(service, token=token),
        http=Connection,
        access_log=False,
        log_level="warning",
        lifespan="on",
        ws="none",
        server_header=False,
        proxy_headers=False,
        limit_concurrency=MOST_CONNECTIONS,
        timeout_keep_alive=30,
        timeout_graceful_shutdown=10,
        h11_max_incomplete_event_size=32 * 1024,
    )
    logging.getLogger("python_multipart").setLevel(logging.ERROR)  # clients' mistakes
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: None)  # uvicorn raises them again at its end
    uvicorn.Server(settings).run(sockets=[listening])
    print("Stopped; the index is saved.", flush=True)
