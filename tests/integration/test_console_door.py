"""Who may come in: the token, the names it answers to, the login, and what is said when something is wrong."""

import time
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from sidecar.console.guard import COOKIE, SESSION_SECONDS, Doorkeeper
from sidecar.readiness import Readiness
from tests.console import BEARER, NOWHERE, TOKEN, Client, console, get
from tests.rows import Pool, Rows


@pytest_asyncio.fixture
async def client(database_url: str) -> AsyncIterator[Client]:
    """Return a client of a console on an empty ledger."""
    async with console(database_url) as made:
        yield made


@pytest_asyncio.fixture
async def door() -> AsyncIterator[Client]:
    """Return a client of a console whose ledger nobody can reach: what it answers, it answered by itself."""
    async with console(NOWHERE) as made:
        yield made


@pytest.fixture
def rows(pool: Pool) -> Rows:
    """Return builders into that ledger."""
    return Rows(pool)


class TestDoor:
    """Without the token there is nothing to learn here."""

    PATHS = ("/api/campaigns", "/api/messages", "/api/messages/x", "/api/export.csv", "/metrics", "/api/none")

    @pytest.mark.parametrize("path", PATHS)
    @pytest.mark.parametrize(
        "headers",
        [
            {},
            {"Authorization": "Bearer wrong"},
            {"Authorization": "Bearer"},
            {"Authorization": f"Basic {TOKEN}"},
            {"Authorization": TOKEN},
            {"Authorization": "Bearer \u00e9"},
        ],
    )
    async def test_no_token_no_answer(self, door: Client, path: str, headers: dict[str, str]) -> None:
        answer = await door.get(f"{path}?token={TOKEN}", headers=headers)
        assert answer.status == 401
        assert answer.headers["WWW-Authenticate"].startswith("Bearer")
        assert (await answer.json())["error"]["code"] == "unauthorized"

    async def test_the_api_does_not_take_the_pages_cookie(self, client: Client, rows: Rows) -> None:
        await rows.campaign("42")
        login = await client.post("/login", data={"token": TOKEN}, allow_redirects=False)
        cookie = {"Cookie": login.headers["Set-Cookie"].partition(";")[0]}
        assert (await client.get("/", headers=cookie)).status == 200
        assert (await client.post("/api/campaigns/42/pause", headers=cookie)).status == 401

    @pytest.mark.parametrize("host", ["evil.example.com", "127.0.0.1.evil.example.com", "localhost@evil.example", ""])
    async def test_another_name_is_refused(self, door: Client, host: str) -> None:
        for path in ("/api/campaigns", "/", "/metrics", "/login"):
            answer = await door.get(path, headers={**BEARER, "Host": host})
            assert answer.status in {400, 421}, (path, host)

    async def test_its_own_names_are_answered(self, database_url: str) -> None:
        async with console(database_url, hosts=("console.example.com", "192.0.2.7")) as client:
            for host, status in (
                ("Console.Example.com:8081", 200),
                ("192.0.2.7", 200),
                ("localhost:1", 200),
                ("[::1]:8081", 200),
                ("192.0.2.8", 421),
            ):
                answer = await client.get("/api/campaigns", headers={**BEARER, "Host": host})
                assert answer.status == status, host
        async with console(database_url, hosts=("0.0.0.0",)) as client:
            for host, status in (("192.0.2.8:8081", 200), ("[2001:db8::1]", 200), ("evil.example.com", 421)):
                answer = await client.get("/api/campaigns", headers={**BEARER, "Host": host})
                assert answer.status == status, host

    async def test_probes_need_neither_token_nor_name(self, database_url: str) -> None:
        readiness = Readiness("postgresql")
        async with console(database_url, readiness=readiness) as client:
            probe = {"Host": "10.0.0.7"}
            assert (await client.get("/healthz", headers=probe)).status == 200
            answer = await client.get("/readyz", headers=probe)
            assert answer.status == 503
            assert "postgresql" in (await answer.json())["missing"]
            readiness.have("postgresql")
            assert (await client.get("/readyz", headers=probe)).status == 200

    async def test_metrics_are_prometheus_text_without_people(self, client: Client, rows: Rows) -> None:
        await rows.campaign("secret-campaign")
        await client.post("/api/campaigns/secret-campaign/sync-counts", headers=BEARER)
        answer = await client.get("/metrics", headers=BEARER)
        assert answer.status == 200
        assert answer.headers["Content-Type"].startswith("text/plain; version=")
        text = await answer.text()
        assert "outrider_count_drift" in text
        assert "secret-campaign" not in text
        assert "@" not in text

    async def test_odd_paths_are_404(self, door: Client) -> None:
        for path in ("/api", "/api/", "/api/../metrics/x", "/static/../app.py", "/static/%2e%2e/app.py", "/x"):
            answer = await door.get(path, headers=BEARER)
            assert answer.status == 404, path


class TestTrouble:
    """When PostgreSQL is away the answer says so, in words of ours."""

    async def test_a_ledger_that_is_away_is_503(self) -> None:
        async with console(NOWHERE) as client:
            for path in ("/api/campaigns", "/api/messages/x@example.com", "/api/events", "/api/export.csv"):
                answer = await get(client, path, 503)
                assert answer == {
                    "error": {
                        "code": "unavailable",
                        "message": "PostgreSQL cannot be reached; try again in a moment",
                    }
                }
            assert (await client.get("/metrics", headers=BEARER)).status == 200

    async def test_a_defect_is_500_without_its_words(self, client: Client, pool: Pool) -> None:
        await pool.execute("ALTER TABLE campaign RENAME TO away")
        answer = await get(client, "/api/campaigns", 500)
        assert answer["error"]["code"] == "internal"
        assert "campaign" not in answer["error"]["message"]


class TestWords:
    """What cannot be understood is refused by the name of its parameter."""

    @pytest.mark.parametrize(
        ("path", "name"),
        [
            ("/api/messages?limit=0", "limit"),
            ("/api/messages?limit=501", "limit"),
            ("/api/messages?limit=ten", "limit"),
            ("/api/messages?limit=%D9%A1", "limit"),
            ("/api/messages?status=lost", "status"),
            ("/api/messages?status=sent&status=failed", "status"),
            ("/api/messages?submission=abc", "submission"),
            ("/api/messages?since=yesterday", "since"),
            ("/api/messages?since=0001-01-01T00:00:00%2B14:00", "since"),
            ("/api/messages?cursor=x", "cursor"),
            ("/api/messages?cursor=z_________8", "cursor"),
            ("/api/messages?recipient=a%00b", "recipient"),
            ("/api/messages?recipent=ann@example.net", "recipent"),
            ("/api/events?type=read", "type"),
            ("/api/events?cursor=AQ", "cursor"),
            ("/api/campaigns?limit=-1", "limit"),
            ("/api/campaigns?campaign=" + "x" * 1001, "campaign"),
            ("/api/export.csv?filter=some", "filter"),
        ],
    )
    async def test_a_bad_value_is_refused_by_its_name(self, door: Client, path: str, name: str) -> None:
        error = (await get(door, path, 400))["error"]
        assert error["code"] in {"bad_parameter", "unknown_parameter"}
        assert error["message"].startswith(f"{name}: ")


class TestLogin:
    """The token is given once and kept in no URL; the cookie proves it afterwards."""

    async def test_a_page_without_the_token_asks_for_it(self, door: Client) -> None:
        answer = await door.get("/inbox/x?view=text")
        text = await answer.text()
        assert answer.status == 401
        assert '<form class="card login" method="post" action="/login">' in text
        assert '<input type="hidden" name="target" value="/inbox/x?view=text">' in text

    async def test_a_login_leads_on_with_a_cookie(self, door: Client) -> None:
        answer = await door.post("/login", data={"token": TOKEN, "target": "/?page=2"}, allow_redirects=False)
        assert (answer.status, answer.headers["Location"]) == (303, "/?page=2")
        cookie = answer.headers["Set-Cookie"]
        assert "HttpOnly" in cookie
        assert "SameSite=Strict" in cookie
        assert TOKEN not in cookie
        value = cookie.partition(";")[0]
        assert (await door.get("/", headers={"Cookie": value})).status == 200
        left = await door.post("/logout", headers={"Cookie": value}, allow_redirects=False)
        assert left.status == 303
        assert 'outrider_console=""' in left.headers["Set-Cookie"]

    @pytest.mark.parametrize(
        "target", ["//evil.example.com", "/\\evil.example.com", "https://evil.example.com", "x", "/\r\nX: y"]
    )
    async def test_it_leads_nowhere_else(self, door: Client, target: str) -> None:
        answer = await door.post("/login", data={"token": TOKEN, "target": target}, allow_redirects=False)
        assert (answer.status, answer.headers["Location"]) == (303, "/")

    async def test_a_wrong_token_is_told(self, door: Client) -> None:
        for token in ("", "wrong", TOKEN + "x", "\u00e9"):
            answer = await door.post("/login", data={"token": token}, allow_redirects=False)
            assert answer.status == 401
            assert "Set-Cookie" not in answer.headers
            assert "not this console" in await answer.text()
        assert (await door.post("/login", data=b"x" * 20_000)).status in {413, 415}

    async def test_a_token_in_the_url_is_exchanged_at_once(self, door: Client) -> None:
        answer = await door.get(f"/?page=2&token={TOKEN}", allow_redirects=False)
        assert (answer.status, answer.headers["Location"]) == (303, "/?page=2")
        assert "Set-Cookie" in answer.headers
        wrong = await door.get("/?token=wrong", allow_redirects=False)
        assert wrong.status == 401
        assert "Set-Cookie" not in wrong.headers
        assert "token=wrong" not in await wrong.text()

    @pytest.mark.parametrize("forged", ["", ".", "9999999999", "9999999999.", "9999999999.00", "x.y", "\u00e9.\u00e9"])
    async def test_a_forged_cookie_is_none(self, door: Client, forged: str) -> None:
        answer = await door.get("/", headers={"Cookie": f"outrider_console={forged}"})
        assert answer.status == 401

    async def test_a_cookie_runs_out(self, door: Client) -> None:
        keeper = Doorkeeper(TOKEN, ())
        now = time.time()
        for age, status in ((SESSION_SECONDS - 60, 200), (SESSION_SECONDS + 1, 401)):
            cookie = {"Cookie": f"{COOKIE}={keeper.session(now - age)}"}
            assert (await door.get("/", headers=cookie)).status == status

    async def test_our_files_are_ours(self, door: Client) -> None:
        for name, kind in (
            ("console.css", "text/css"),
            ("console.js", "text/javascript"),
            ("icon.svg", "image/svg+xml"),
        ):
            answer = await door.get(f"/static/{name}")
            assert (answer.status, answer.content_type) == (200, kind)
            text = (await answer.text()).replace('xmlns="http://www.w3.org/2000/svg"', "")
            assert "//" not in text.replace("// ", ""), "nothing is fetched from anywhere else"
