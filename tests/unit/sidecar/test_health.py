"""Health and metrics of a role that runs alone."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import aiohttp

from sidecar.addresses import Listen
from sidecar.health import serving_health
from sidecar.readiness import Readiness

ROOT = Path(__file__).parents[3]


class TestReadiness:
    """What a role reports, and what is answered."""

    def test_a_need_is_missing_until_it_is_there(self) -> None:
        readiness = Readiness("postgres", "upstream")
        assert not readiness.ready
        readiness.have("postgres")
        assert readiness.describe() == {"status": "missing", "missing": {"upstream": "not reached yet"}}
        readiness.have("upstream")
        assert readiness.ready
        assert readiness.describe() == {"status": "ready"}

    def test_what_goes_and_comes_back(self) -> None:
        readiness = Readiness()
        readiness.miss("postgres", "connection refused")
        assert not readiness.ready
        assert readiness.describe()["missing"] == {"postgres": "connection refused"}
        readiness.have("postgres")
        assert readiness.ready

    def test_degraded_is_ready(self) -> None:
        readiness = Readiness("redis")
        readiness.degrade("redis", "journal takes the hits")
        assert readiness.ready
        assert readiness.describe() == {
            "status": "ready",
            "degraded": ["redis"],
            "reasons": {"redis": "journal takes the hits"},
        }
        readiness.miss("redis", "and the journal is full")
        assert not readiness.ready
        assert "degraded" not in readiness.describe()

    def test_draining_is_not_ready(self) -> None:
        readiness = Readiness()
        readiness.drain()
        assert not readiness.ready
        assert readiness.describe() == {"status": "draining"}


async def test_the_three_answers(free_port: Callable[[], int]) -> None:
    """Alive, ready or what is missing, and what was counted."""
    readiness = Readiness("postgres")
    port = free_port()
    base = f"http://127.0.0.1:{port}"
    async with serving_health(Listen(host="127.0.0.1", port=port), readiness), aiohttp.ClientSession(base) as client:
        async with client.get("/healthz") as answer:
            assert (answer.status, await answer.json()) == (200, {"status": "alive"})
        async with client.get("/readyz") as answer:
            assert answer.status == 503
            assert await answer.json() == {"status": "missing", "missing": {"postgres": "not reached yet"}}
        readiness.have("postgres")
        async with client.get("/readyz") as answer:
            assert (answer.status, await answer.json()) == (200, {"status": "ready"})
        async with client.get("/metrics") as answer:
            assert answer.status == 200
            assert answer.content_type == "text/plain"
            assert "python_info" in await answer.text()
        async with client.get("/") as answer:
            assert answer.status == 404


async def test_the_port_is_free_again(free_port: Callable[[], int]) -> None:
    """The end of the block gives the port back."""
    listen = Listen(host="127.0.0.1", port=free_port())
    for _ in range(2):
        async with serving_health(listen, Readiness()):
            pass


def test_processes_that_count_together(tmp_path: Path) -> None:
    """With PROMETHEUS_MULTIPROC_DIR any process answers for all, also for those that have ended."""
    code = (
        "from prometheus_client import Counter; from sidecar.metrics import exposition;"
        "Counter('outrider_tried_total', 'x').inc(); print(exposition().decode())"
    )
    environment = {"PROMETHEUS_MULTIPROC_DIR": str(tmp_path), "PYTHONPATH": str(ROOT)}
    shown = [
        subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True).stdout
        for _ in range(2)
    ]
    assert "outrider_tried_total 1.0" in shown[0]
    assert "outrider_tried_total 2.0" in shown[1]
