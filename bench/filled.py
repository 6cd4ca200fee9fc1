"""Fill a ledger with mail that was sent long ago: as many rows as asked for, as wide as real ones, keys at random.

The rows are what the relay leaves behind one sent message with a campaign and a Message-ID of the mailer: a message,
its delivery, and two aliases. SQL writes them into the real schema, and every index of it is whole afterwards.
"""

from typing import Final

from bench.mailing import Connection

#: Messages of one campaign; the last has what is left.
CAMPAIGN_MESSAGES: Final = 100_000
_TABLES: Final = ("message", "delivery", "alias")
#: Rows that one statement writes.
_ROWS: Final = 1_000_000
#: How full random inserts leave the pages of a B-tree in the long run: ln 2. One that was just built is fuller, and
#: would split more pages than it ever does again.
_SETTLED_PERCENT: Final = 69

_CAMPAIGNS: Final = """
INSERT INTO campaign (source, campaign_id, to_send)
SELECT 'default', 'filled-' || number, $2::integer FROM generate_series(1, $1::bigint) AS number
"""

# Random, and the same in every run. A relay's keys are digests as these are.
_MESSAGES: Final = """
INSERT INTO message (
    key, accepted_at, campaign, generation, size, links, injected, source, sender, recipient, recipient_index,
    message_id, original_message_id, body_digest
)
SELECT
    key, now() - interval '30 days' + number * interval '1 ms', (number - 1) / $3 + 1, 0, 20000, 20, true, 'default',
    'bounce@example.com', convert_to('reader.' || number || '@example.net', 'UTF8'),
    substr(sha256(key), 1, 16), substr(encode(key, 'hex'), 1, 26) || '@example.com',
    encode(substr(key, 1, 8), 'hex') || '.' || number || '@mailer.example.com', sha256(int8send(number))
FROM generate_series($1::bigint, $2::bigint) AS number, substr(sha256(int8send(number)), 1, 16) AS key
"""
_DELIVERIES: Final = """
INSERT INTO delivery (message, status, attempts, dot_at, settled_at, upstream, reply)
SELECT
    id, 'sent', 1, accepted_at, accepted_at, '127.0.0.1:25', '250 2.0.0 Ok: queued as ' || upper(to_hex(id))
FROM message WHERE id BETWEEN $1 AND $2
"""
# Of the mailer's Message-ID, and of the id in the upstream's reply.
_ALIASES: Final = """
INSERT INTO alias (digest, message, at)
SELECT substr(sha256(int2send(kind::smallint) || key), 1, 16), id, accepted_at
FROM message CROSS JOIN generate_series(1, 2) AS kind WHERE id BETWEEN $1 AND $2
"""

# An index that is not ready takes no rows, and one that is built anew is ready: the schema itself is not touched. The
# rows of the other tables are made by the one that stays.
_LEAVE_INDEXES: Final = """
UPDATE pg_index SET indisready = false, indisvalid = false
WHERE indrelid = $1::regclass AND indexrelid <> 'message_id_idx'::regclass
"""
_RANDOM: Final = ("message_pkey", "message_recipient_idx", "alias_pkey")


async def fill(connection: Connection, messages: int) -> None:
    """Enter *messages* that were sent, in campaigns of `CAMPAIGN_MESSAGES`, into an empty ledger.

    The connection has to be of a superuser. Ten million take minutes and 8 GB.
    """
    if messages == 0:
        return
    await connection.execute(_CAMPAIGNS, -(-messages // CAMPAIGN_MESSAGES), CAMPAIGN_MESSAGES)
    await connection.execute("SET maintenance_work_mem = '512MB'")
    for table in _TABLES:
        await connection.execute(_LEAVE_INDEXES, table)
    for first in range(1, messages + 1, _ROWS):
        last = min(first + _ROWS - 1, messages)
        await connection.execute(_MESSAGES, first, last, CAMPAIGN_MESSAGES)
        await connection.execute(_DELIVERIES, first, last)
        await connection.execute(_ALIASES, first, last)
    for index in _RANDOM:
        await connection.execute(f"ALTER INDEX {index} SET (fillfactor = {_SETTLED_PERCENT})")
    for table in _TABLES:
        await connection.execute(f"REINDEX TABLE {table}")
        # Without it autovacuum would do so in the middle of what is measured.
        await connection.execute(f"VACUUM (ANALYZE, FREEZE) {table}")
    for index in _RANDOM:
        await connection.execute(f"ALTER INDEX {index} RESET (fillfactor)")
    await connection.execute("RESET maintenance_work_mem")


async def broken_indexes(connection: Connection) -> list[str]:
    """Return the indexes of the ledger that are not whole."""
    rows = await connection.fetch(
        "SELECT indexrelid::regclass::text AS name FROM pg_index WHERE NOT (indisready AND indisvalid) ORDER BY 1"
    )
    return [row["name"] for row in rows]
