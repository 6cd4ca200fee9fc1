"""nginx that answers a constant pixel: what a web server in C makes of the same load."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

from bench import programs

_CONFIGURATION: Final = """daemon off;
worker_processes 1;
pid {home}/pid;
error_log {home}/error.log;
events {{ worker_connections 1024; }}
http {{
    access_log off;
    keepalive_requests 100000000;
    client_body_temp_path {home};
    proxy_temp_path {home};
    fastcgi_temp_path {home};
    uwsgi_temp_path {home};
    scgi_temp_path {home};
    server {{ listen 127.0.0.1:{port}; location / {{ empty_gif; }} }}
}}
"""


@asynccontextmanager
async def nginx(program: str, home: Path, port: int) -> AsyncIterator[int]:
    """Run it in *home* for the time of the block, one worker, and yield its pid."""
    configuration = _lay_out(home, port)
    argv = (program, "-c", str(configuration), "-p", str(home))
    async with programs.server(argv, port=port, log=home / "output") as pid:
        yield pid


def _lay_out(home: Path, port: int) -> Path:
    home.mkdir()
    # Its worker runs as another account, and needs the way.
    home.chmod(0o755)
    configuration = home / "nginx.conf"
    configuration.write_text(_CONFIGURATION.format(home=home, port=port), "ascii")
    return configuration
