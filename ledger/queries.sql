-- Every statement of the ledger. Each has a name, a purpose in one line, and exactly one statement.
-- Sections follow the flow; a file beside this one gives each section its types.

-- == connections (ledger/store.py) ==

-- name: go_by_index
-- Plan this connection's statements as for large tables: plans are made once, the first of them while these are empty.
SELECT set_config('enable_seqscan', 'off', false), set_config('jit', 'off', false);

-- == keys, processes and leases (ledger/processes.py) ==

-- name: register_process
-- Enter a process with a lease of $2 seconds; its id owns what it works on.
INSERT INTO process (role, lease_until)
VALUES ($1, now() + make_interval(secs => $2))
RETURNING id;

-- name: renew_process
-- Extend a process's lease to $2 seconds from now, also one that ran out, or was forgotten, while it could not be renewed.
INSERT INTO process (id, role, lease_until) OVERRIDING SYSTEM VALUE
VALUES ($1, $3, now() + make_interval(secs => $2))
ON CONFLICT (id) DO UPDATE SET lease_until = excluded.lease_until;

-- name: leave_process
-- End a process's lease, and those with a name that it holds, at once: nobody has to wait for them to run out.
WITH given AS (DELETE FROM lease WHERE owner = $1)
UPDATE process SET lease_until = now() WHERE id = $1;

-- name: take_lease
-- Take or renew the named lease for owner $2 for $3 seconds; no row while somebody else holds it.
INSERT INTO lease (name, owner, lease_until)
VALUES ($1, $2, now() + make_interval(secs => $3))
ON CONFLICT (name) DO UPDATE SET owner = excluded.owner, lease_until = excluded.lease_until
WHERE lease.owner = excluded.owner OR lease.lease_until < now()
RETURNING owner;

-- name: give_lease
-- Give the named lease back.
DELETE FROM lease WHERE name = $1 AND owner = $2;

-- name: lock_keyring
-- Let one process at a time compare its keys, so that two first starts cannot both be first.
SELECT pg_advisory_xact_lock(1869968499);

-- name: keyring_fingerprints
-- The fingerprints of the keys that this ledger was written with, for one purpose.
SELECT fingerprint FROM keyring WHERE purpose = $1;

-- name: remember_fingerprint
-- Remember a key's fingerprint.
INSERT INTO keyring (purpose, fingerprint) VALUES ($1, $2) ON CONFLICT DO NOTHING;

-- name: make_partitions
-- Make the partitions of bodies (days) and events (months) that are needed next, drop spent ones; twice is once.
-- False when somebody stood in the way: try again later.
SELECT make_partitions($1::date) AS done;

-- name: note_upstreams
-- Tell how process $1 finds the upstreams $2: left alone since $3 (null: not) because of $4. What has not changed is not written.
INSERT INTO upstream_state (process, upstream, left_since, reason)
SELECT p.id, told.* FROM process p, unnest($2::text[], $3::timestamptz[], $4::text[]) AS told
WHERE p.id = $1
ON CONFLICT (process, upstream) DO UPDATE SET left_since = excluded.left_since, reason = excluded.reason
WHERE (upstream_state.left_since, upstream_state.reason) IS DISTINCT FROM (excluded.left_since, excluded.reason);

-- name: forget_processes
-- Forget processes that ended long ago and hold nothing.
DELETE FROM process p
WHERE p.lease_until < now() - interval '1 day' AND NOT EXISTS (SELECT FROM delivery d WHERE d.worker = p.id);

-- name: forget_seen
-- Forget which events were recorded more than 60 days ago: no copy of them can still arrive.
DELETE FROM event_seen WHERE at < now() - interval '60 days';

-- == mail in (ledger/mail.py) ==

-- name: ensure_campaign
-- Find or make the campaign ($1 source, $2 id, $3 its AMS mailing or null, $4 how many it expects or null); a new one is closed when $5.
INSERT INTO campaign (source, campaign_id, ams_mailing, to_send, closed) VALUES ($1, $2, $3, $4, $5)
ON CONFLICT (source, campaign_id)
DO UPDATE SET
    ams_mailing = coalesce(campaign.ams_mailing, excluded.ams_mailing),
    to_send = coalesce(excluded.to_send, campaign.to_send)
RETURNING id;

-- name: next_submission
-- Draw the id under which the messages of a transaction with several recipients are entered.
SELECT nextval(pg_get_serial_sequence('submission', 'id')) AS id;

-- name: enter_submission
-- Let the messages entered under $1 be found by the submission's key; a repeat finds the key taken, as it should.
INSERT INTO submission (id, key, accepted_at) OVERRIDING SYSTEM VALUE VALUES ($1, $2, $3)
ON CONFLICT DO NOTHING;

-- name: insert_messages
-- Correlate a group of messages: rows, delivery states, aliases and counts at once. A key that exists already gives no row.
WITH incoming AS (
    SELECT * FROM unnest(
        $1::bytea[], $2::timestamptz[], $3::bigint[], $4::bigint[], $5::integer[], $6::integer[], $7::integer[],
        $8::boolean[], $9::text[], $10::text[], $11::text[], $12::bytea[], $13::bytea[], $14::bytea[],
        $15::text[], $16::text[], $17::bytea[], $18::bytea[], $21::bytea[]
    ) AS t (
        key, accepted_at, campaign, submission, generation, size, links,
        injected, reason, source, campaign_reason, sender, recipient, recipient_index,
        message_id, original_message_id, body_digest, alias, subscriber
    )
), added AS (
    INSERT INTO message (
        key, accepted_at, campaign, submission, generation, size, links, injected, reason, source,
        campaign_reason, sender, recipient, recipient_index, message_id, original_message_id, body_digest, subscriber
    )
    SELECT
        key, accepted_at, campaign, submission, generation, size, links, injected, reason, source,
        campaign_reason, sender, recipient, recipient_index, message_id, original_message_id, body_digest, subscriber
    FROM incoming ORDER BY key
    ON CONFLICT (key) DO NOTHING
    RETURNING id, key, campaign, source, recipient_index
), judged AS (
    SELECT
        added.id, added.key, added.campaign, coalesce(c.paused_at IS NOT NULL OR c.closed, false) AS paused,
        c.rate, c.rate_epoch, s.reason AS barred, s.reason IS NOT NULL AS suppressed
    FROM added
    LEFT JOIN campaign c ON c.id = added.campaign
    LEFT JOIN LATERAL (
        SELECT reason FROM suppression s
        WHERE s.recipient_index = added.recipient_index AND s.lifted_at IS NULL
            AND ($20::boolean OR s.source IN (added.source, ''))
        ORDER BY s.at LIMIT 1
    ) s ON added.campaign IS NOT NULL
), placed AS (
    INSERT INTO delivery (message, status, worker, settled_at)
    SELECT
        id,
        (CASE WHEN suppressed THEN 'suppressed' ELSE 'accepted' END)::delivery_status,
        CASE WHEN NOT suppressed THEN $19::bigint END,
        CASE WHEN suppressed THEN now() END
    FROM judged
), aliased AS (
    INSERT INTO alias (digest, message)
    SELECT incoming.alias, added.id FROM incoming JOIN added USING (key)
    WHERE incoming.alias IS NOT NULL
    ON CONFLICT DO NOTHING
), told AS (
    INSERT INTO event (message, occurred_at, type, source, reason, dedupe)
    SELECT id, now(), 'suppressed', 'relay', barred, substr(sha256(key || '\x73'::bytea), 1, 16)
    FROM judged WHERE suppressed
), counted AS (
    INSERT INTO campaign_delta (campaign, counter, amount)
    SELECT campaign, 'accepted', count(*) FROM judged WHERE campaign IS NOT NULL GROUP BY campaign
    UNION ALL
    SELECT campaign, 'suppressed', count(*) FROM judged
    WHERE campaign IS NOT NULL AND suppressed GROUP BY campaign
)
SELECT key, id, suppressed, paused, campaign, rate, rate_epoch FROM judged;

-- name: find_messages
-- What the ledger knows of messages with these keys, so that a repeat can be told from a new message.
SELECT
    m.key, m.id, m.submission, m.body_digest, m.accepted_at, d.status::text AS status, d.worker, d.turn,
    d.body IS NOT NULL AS stored, coalesce(p.lease_until > now(), false) AS worked_on,
    coalesce(c.paused_at IS NOT NULL OR c.closed, false) AS paused, m.campaign, c.rate, c.rate_epoch
FROM message m
JOIN delivery d ON d.message = m.id
LEFT JOIN process p ON p.id = d.worker
LEFT JOIN campaign c ON c.id = m.campaign
WHERE m.key = ANY($1::bytea[]);

-- name: reopen_delivery
-- Try a message again that failed, was refused, or whose process is gone: only one caller gets the row.
-- A final dot that was out without an answer is a doubt.
WITH old AS (
    SELECT d.message, d.status, m.campaign,
        d.status IN ('accepted', 'refused') AND d.dot_at IS NOT NULL AS doubtful
    FROM delivery d JOIN message m ON m.id = d.message
    WHERE d.message = $1 AND d.status = $2::delivery_status AND d.turn = $3
    FOR UPDATE OF d
), moved AS (
    UPDATE delivery d
    SET status = 'accepted', worker = $4, turn = d.turn + 1, dot_at = NULL, settled_at = NULL, next_at = NULL,
        doubts = d.doubts + old.doubtful::int
    FROM old WHERE d.message = old.message
    RETURNING d.message, d.turn, d.doubts
), counted AS (
    INSERT INTO campaign_delta (campaign, counter, amount)
    SELECT campaign, old.status::text, -1 FROM old JOIN moved USING (message)
    WHERE campaign IS NOT NULL AND old.status IN ('failed', 'refused')
)
SELECT moved.turn, old.doubtful, moved.doubts FROM moved JOIN old USING (message);

-- name: mark_dots
-- Commit the intent to send the final dot of these messages; no row for one that is no longer ours.
UPDATE delivery d SET dot_at = now()
FROM unnest($1::bigint[], $2::integer[]) AS ours (message, turn)
WHERE d.message = ours.message AND d.turn = ours.turn AND d.worker = $3 AND d.status IN ('accepted', 'sending')
RETURNING d.message;

-- name: settle_deliveries
-- Record final results: state, the upstream's words, its id as an alias, the counts, and an event for a failure.
-- What was sent is sent, whoever held the row meanwhile; every other word counts in its own turn only.
WITH result AS (
    SELECT * FROM unnest(
        $1::bigint[], $2::text[], $3::text[], $4::text[], $5::bytea[], $6::bytea[], $7::integer[], $8::boolean[]
    ) AS t (message, status, upstream, reply, alias, dedupe, turn, doubtful)
), old AS (
    SELECT d.message, d.status, d.turn, m.campaign
    FROM delivery d JOIN message m ON m.id = d.message
    WHERE d.message = ANY($1::bigint[])
    ORDER BY d.message FOR UPDATE OF d
), valid AS (
    SELECT DISTINCT ON (message) result.*, old.status AS before, old.campaign
    FROM result JOIN old USING (message)
    WHERE CASE result.status
        WHEN 'sent' THEN old.status NOT IN ('sent', 'suppressed')
        WHEN 'failed' THEN old.turn = result.turn AND old.status IN ('accepted', 'sending', 'queued', 'refused')
        ELSE old.turn = result.turn AND old.status = 'accepted'
    END
    ORDER BY message, result.status = 'sent' DESC
), moved AS (
    UPDATE delivery d
    SET status = valid.status::delivery_status, settled_at = now(), worker = NULL, next_at = NULL,
        body = NULL, body_day = NULL, upstream = coalesce(valid.upstream, d.upstream),
        reply = coalesce(valid.reply, d.reply), attempts = d.attempts + 1,
        dot_at = CASE WHEN valid.status = 'refused' AND NOT valid.doubtful THEN NULL ELSE d.dot_at END
    FROM valid WHERE d.message = valid.message
    RETURNING d.message
), aliased AS (
    INSERT INTO alias (digest, message)
    SELECT valid.alias, valid.message FROM valid JOIN moved USING (message) WHERE valid.alias IS NOT NULL
    ON CONFLICT DO NOTHING
), told AS (
    INSERT INTO event (message, occurred_at, type, source, reason, dedupe)
    SELECT valid.message, now(), 'failed', 'relay', valid.reply, valid.dedupe
    FROM valid JOIN moved USING (message) WHERE valid.status = 'failed'
), counted AS (
    INSERT INTO campaign_delta (campaign, counter, amount)
    SELECT campaign, counter, sum(amount) FROM (
        SELECT campaign, status AS counter, 1 AS amount FROM valid
        UNION ALL
        SELECT campaign, 'queued', -1 FROM valid WHERE before IN ('queued', 'sending')
        UNION ALL
        SELECT campaign, before::text, -1 FROM valid WHERE before IN ('refused', 'failed')
    ) change WHERE campaign IS NOT NULL GROUP BY campaign, counter
)
SELECT message FROM moved;

-- name: store_body
-- Keep what must be sent later ($1 envelope, $2 profile, $3 content), once per submission.
INSERT INTO body (day, envelope, profile, content) VALUES (current_date, $1, $2, $3)
RETURNING day, id;

-- name: queue_deliveries
-- Queue messages on a stored body; those whose final dot is out stay with their task as `sending`.
WITH entry AS (
    SELECT * FROM unnest($1::bigint[], $2::boolean[], $3::float8[], $4::text[], $8::integer[], $9::boolean[], $11::boolean[])
        AS t (message, dotted, wait, reply, turn, doubtful, tried)
), old AS (
    SELECT d.message, d.status, m.campaign
    FROM delivery d JOIN entry ON entry.message = d.message AND entry.turn = d.turn JOIN message m ON m.id = d.message
    WHERE d.status IN ('accepted', 'refused')
    ORDER BY d.message FOR UPDATE OF d
), moved AS (
    UPDATE delivery d
    SET status = (CASE WHEN entry.dotted THEN 'sending' ELSE 'queued' END)::delivery_status,
        worker = CASE WHEN entry.dotted THEN $10::bigint END,
        next_at = CASE WHEN NOT entry.dotted THEN now() + make_interval(secs => entry.wait) END,
        dot_at = CASE WHEN entry.dotted THEN d.dot_at END,
        doubts = d.doubts + entry.doubtful::int, settled_at = NULL,
        body_day = $5, body = $6, reply = coalesce(entry.reply, d.reply), upstream = $7,
        attempts = d.attempts + entry.tried::int
    FROM entry JOIN old USING (message) WHERE d.message = old.message
    RETURNING d.message
), counted AS (
    INSERT INTO campaign_delta (campaign, counter, amount)
    SELECT campaign, counter, sum(amount) FROM (
        SELECT old.campaign, 'queued' AS counter, 1 AS amount FROM old JOIN moved USING (message)
        UNION ALL
        SELECT old.campaign, 'refused', -1 FROM old JOIN moved USING (message) WHERE old.status = 'refused'
    ) change WHERE campaign IS NOT NULL GROUP BY campaign, counter
)
SELECT message FROM moved;

-- name: claim_due
-- Take up to $2 due messages for process $1, oldest first; several workers are safe. One whose campaign is held is set aside until it is released, and one whose recipient wants no more ends here; both come back as what they are.
WITH due AS (
    SELECT
        d.message, m.campaign, m.key, coalesce(c.paused_at IS NOT NULL OR c.closed, false) AS held, c.rate, c.rate_epoch,
        s.reason AS barred
    FROM delivery d
    JOIN message m ON m.id = d.message
    LEFT JOIN campaign c ON c.id = m.campaign
    LEFT JOIN LATERAL (
        SELECT reason FROM suppression s
        WHERE s.recipient_index = m.recipient_index AND s.lifted_at IS NULL
            AND ($3::boolean OR s.source IN (m.source, ''))
        ORDER BY s.at LIMIT 1
    ) s ON m.campaign IS NOT NULL
    WHERE d.status = 'queued' AND d.next_at <= now()
    ORDER BY d.next_at LIMIT $2
    FOR UPDATE OF d SKIP LOCKED
), fate AS (
    SELECT *, (CASE WHEN barred IS NOT NULL THEN 'suppressed' WHEN held THEN 'queued' ELSE 'sending' END) AS status
    FROM due
), moved AS (
    UPDATE delivery d
    SET status = fate.status::delivery_status,
        worker = CASE WHEN fate.status = 'sending' THEN $1::bigint END,
        turn = d.turn + (fate.status <> 'queued')::int,
        next_at = CASE WHEN fate.status = 'queued' THEN 'infinity'::timestamptz END,
        settled_at = CASE WHEN fate.status = 'suppressed' THEN now() END,
        body = CASE WHEN fate.status <> 'suppressed' THEN d.body END,
        body_day = CASE WHEN fate.status <> 'suppressed' THEN d.body_day END,
        dot_at = NULL
    FROM fate WHERE d.message = fate.message
    RETURNING d.message, d.turn, d.attempts, d.doubts, d.body_day, d.body, fate.status, fate.campaign, fate.rate, fate.rate_epoch
), told AS (
    INSERT INTO event (message, occurred_at, type, source, reason, dedupe)
    SELECT message, now(), 'suppressed', 'relay', barred, substr(sha256(key || '\x73'::bytea), 1, 16)
    FROM fate WHERE fate.status = 'suppressed'
), counted AS (
    INSERT INTO campaign_delta (campaign, counter, amount)
    SELECT campaign, counter, count(*) * sign FROM fate
    CROSS JOIN (VALUES ('queued', -1), ('suppressed', 1)) change (counter, sign)
    WHERE fate.status = 'suppressed' GROUP BY campaign, counter, sign
)
SELECT m.id, m.key, m.generation, m.accepted_at, m.recipient, m.message_id,
    moved.turn, moved.attempts, moved.doubts, moved.body_day, moved.body, moved.status, moved.campaign, moved.rate, moved.rate_epoch
FROM moved JOIN message m ON m.id = moved.message;

-- name: set_aside_held
-- Set aside up to $1 due messages whose campaign is held, so that no claim has to look past them.
WITH held AS (
    SELECT d.message
    FROM delivery d
    JOIN message m ON m.id = d.message
    JOIN campaign c ON c.id = m.campaign
    WHERE d.status = 'queued' AND d.next_at <= now() AND (c.paused_at IS NOT NULL OR c.closed)
    LIMIT $1
    FOR UPDATE OF d SKIP LOCKED
)
UPDATE delivery d SET next_at = 'infinity' FROM held WHERE d.message = held.message
RETURNING d.message;

-- name: release_held
-- Make due again up to $2 messages that were set aside and whose campaign, $1 when it is given, is held no more.
WITH released AS (
    SELECT d.message
    FROM delivery d
    JOIN message m ON m.id = d.message
    LEFT JOIN campaign c ON c.id = m.campaign
    WHERE d.status = 'queued' AND d.next_at = 'infinity' AND c.paused_at IS NULL AND c.closed IS NOT TRUE
        AND ($1::bigint IS NULL OR m.campaign = $1)
    LIMIT $2
    FOR UPDATE OF d SKIP LOCKED
)
UPDATE delivery d SET next_at = now() FROM released WHERE d.message = released.message
RETURNING d.message;

-- name: load_body
-- The stored submission of a queued message.
SELECT envelope, profile, content FROM body WHERE day = $1 AND id = $2;

-- name: postpone_delivery
-- Put a message back into the queue for $2 seconds with what the upstream said; $4 when it may have been sent, $7 when it was tried.
UPDATE delivery
SET status = 'queued', worker = NULL, next_at = now() + make_interval(secs => $2), reply = coalesce($3, reply),
    attempts = attempts + $7::boolean::int, doubts = doubts + $4::int, upstream = $5, dot_at = NULL
WHERE message = $1 AND status = 'sending' AND turn = $6;

-- name: held_deliveries
-- What a process is said to have in hand, sent or yet to be decided.
SELECT message, turn, status::text AS status FROM delivery WHERE worker = $1 AND status IN ('accepted', 'sending');

-- name: put_back_held
-- Let go of what process $3 was said to have in hand and has not: what is stored is queued again, the rest is refused.
-- A final dot that may be out is a doubt.
WITH lost AS (
    SELECT d.message, d.status, m.campaign
    FROM unnest($1::bigint[], $2::integer[]) AS one (message, turn)
    JOIN delivery d ON d.message = one.message AND d.turn = one.turn
    JOIN message m ON m.id = d.message
    WHERE d.worker = $3 AND d.status IN ('accepted', 'sending')
    ORDER BY d.message FOR UPDATE OF d
), moved AS (
    UPDATE delivery d
    SET status = (CASE lost.status WHEN 'sending' THEN 'queued' ELSE 'refused' END)::delivery_status,
        worker = NULL,
        next_at = CASE lost.status WHEN 'sending' THEN now() END,
        settled_at = CASE lost.status WHEN 'accepted' THEN now() END,
        doubts = d.doubts + (lost.status = 'sending' AND d.dot_at IS NOT NULL)::int,
        dot_at = CASE lost.status WHEN 'accepted' THEN d.dot_at END
    FROM lost WHERE d.message = lost.message
    RETURNING d.message
), counted AS (
    INSERT INTO campaign_delta (campaign, counter, amount)
    SELECT campaign, 'refused', count(*) FROM lost JOIN moved USING (message)
    WHERE campaign IS NOT NULL AND lost.status = 'accepted' GROUP BY campaign
)
SELECT message FROM moved;

-- name: take_over_sending
-- Queue again what a process that is gone had in hand; a final dot that may be out is a doubt.
WITH gone AS (
    SELECT d.message, d.dot_at IS NOT NULL AS doubtful
    FROM delivery d JOIN process p ON p.id = d.worker
    WHERE p.lease_until < now() AND d.status = 'sending'
    ORDER BY d.message LIMIT 10000
    FOR UPDATE OF d SKIP LOCKED
)
UPDATE delivery d
SET status = 'queued', worker = NULL, next_at = now(), doubts = d.doubts + gone.doubtful::int, dot_at = NULL
FROM gone WHERE d.message = gone.message
RETURNING d.message, gone.doubtful;

-- name: sweep_accepted
-- End what a process that is gone never answered: no 250 was given, so it is refused.
WITH gone AS (
    SELECT d.message, m.campaign
    FROM delivery d
    JOIN process p ON p.id = d.worker
    JOIN message m ON m.id = d.message
    WHERE p.lease_until < now() AND d.status = 'accepted'
    ORDER BY d.message LIMIT 10000
    FOR UPDATE OF d SKIP LOCKED
), moved AS (
    UPDATE delivery d SET status = 'refused', worker = NULL, settled_at = now()
    FROM gone WHERE d.message = gone.message
    RETURNING d.message
), counted AS (
    INSERT INTO campaign_delta (campaign, counter, amount)
    SELECT campaign, 'refused', count(*) FROM gone JOIN moved USING (message)
    WHERE campaign IS NOT NULL GROUP BY campaign
)
SELECT message FROM moved;

-- name: free_bodies
-- Look at the next 2000 bodies, from the oldest on and round again; free those that no queued message needs, none from the last minute.
WITH looked AS MATERIALIZED (
    SELECT b.day, b.id FROM body b
    WHERE (b.day, b.id) > ((SELECT day FROM body_sweep), (SELECT id FROM body_sweep))
    ORDER BY b.day, b.id LIMIT 2000
), unneeded AS MATERIALIZED (
    SELECT l.day, l.id FROM looked l WHERE NOT EXISTS (SELECT FROM delivery d WHERE d.body = l.id)
), swept AS (
    UPDATE body_sweep SET (day, id) = (
        SELECT coalesce(max(last.day), '-infinity'), coalesce(max(last.id), 0)
        FROM (SELECT day, id FROM looked ORDER BY day, id OFFSET 1999) last
    )
)
DELETE FROM body b USING unneeded u
WHERE b.day = u.day AND b.id = u.id AND b.stored_at < now() - interval '1 minute'
RETURNING b.id;

-- name: stored_bytes
-- The octets that queued bodies take.
SELECT coalesce(sum(pg_total_relation_size(inhrelid)), 0)::bigint AS octets
FROM pg_inherits WHERE inhparent = 'body'::regclass;

-- name: queue_depth
-- How many messages wait, and since when the first of them does.
WITH waiting AS (
    SELECT count(*)::bigint AS messages, min(message) AS first FROM delivery WHERE status IN ('queued', 'sending')
)
SELECT w.messages AS waiting, extract(epoch FROM now() - m.accepted_at)::float8 AS oldest_seconds
FROM waiting w LEFT JOIN message m ON m.id = w.first;

-- == the queue in an operator's hands (ledger/queue.py) ==

-- name: list_queue
-- What waits, oldest first, behind the row $1: of campaign $2, or the rows $3, when they are given.
SELECT
    m.id, m.key, m.message_id, c.campaign_id, m.source, m.sender, m.recipient, m.accepted_at, m.size,
    d.status::text AS status, d.attempts, d.doubts, d.upstream, d.reply,
    CASE WHEN d.next_at < 'infinity' THEN d.next_at END AS next_at,
    d.status = 'queued' AND (c.paused_at IS NOT NULL OR c.closed IS TRUE OR d.next_at = 'infinity') AS held
FROM delivery d
JOIN message m ON m.id = d.message
LEFT JOIN campaign c ON c.id = m.campaign
WHERE d.status IN ('queued', 'sending')
    AND ($1::bigint IS NULL OR d.message > $1)
    AND ($2::bigint IS NULL OR m.campaign = $2)
    AND ($3::bigint[] IS NULL OR d.message = ANY($3))
ORDER BY d.message LIMIT $4;

-- name: queued_content
-- The submission that the queued message $1 will be rendered from.
SELECT b.content FROM delivery d JOIN body b ON b.day = d.body_day AND b.id = d.body
WHERE d.message = $1 AND d.status IN ('queued', 'sending');

-- name: hurry_queued
-- Make due at once what waits for its next try: of campaign $1, or the rows $2, when they are given. What is held stays held.
-- Where no rows are given, whole campaigns line up anew.
WITH wanted AS (
    SELECT d.message, m.campaign FROM delivery d JOIN message m ON m.id = d.message
    WHERE d.status = 'queued' AND d.next_at > now() AND d.next_at < 'infinity'
        AND ($1::bigint IS NULL OR m.campaign = $1)
        AND ($2::bigint[] IS NULL OR d.message = ANY($2))
    FOR UPDATE OF d SKIP LOCKED
), afresh AS (
    UPDATE campaign SET rate_epoch = rate_epoch + 1
    WHERE $2::bigint[] IS NULL AND id IN (SELECT campaign FROM wanted)
)
UPDATE delivery d SET next_at = now() FROM wanted WHERE d.message = wanted.message
RETURNING d.message;

-- name: cancel_queued
-- End up to $4 messages that wait, and are in nobody's hands, with the words $3: of campaign $1, or the rows $2, when they are given.
WITH wanted AS (
    SELECT d.message, m.campaign, m.key FROM delivery d JOIN message m ON m.id = d.message
    WHERE d.status = 'queued'
        AND ($1::bigint IS NULL OR m.campaign = $1)
        AND ($2::bigint[] IS NULL OR d.message = ANY($2))
    LIMIT $4
    FOR UPDATE OF d SKIP LOCKED
), moved AS (
    UPDATE delivery d
    SET status = 'failed', settled_at = now(), next_at = NULL, body = NULL, body_day = NULL, reply = $3,
        turn = d.turn + 1
    FROM wanted WHERE d.message = wanted.message
    RETURNING d.message, d.turn
), told AS (
    INSERT INTO event (message, occurred_at, type, source, reason, dedupe)
    SELECT wanted.message, now(), 'failed', 'operator', $3,
        substr(sha256(wanted.key || convert_to('cancelled ' || moved.turn, 'UTF8')), 1, 16)
    FROM wanted JOIN moved USING (message)
), counted AS (
    INSERT INTO campaign_delta (campaign, counter, amount)
    SELECT campaign, counter, sum(amount) FROM (
        SELECT campaign, 'queued' AS counter, -1 AS amount FROM wanted JOIN moved USING (message)
        UNION ALL
        SELECT campaign, 'failed', 1 FROM wanted JOIN moved USING (message)
    ) change WHERE campaign IS NOT NULL GROUP BY campaign, counter
)
SELECT message FROM moved;

-- name: remember_profile
-- Remember what rendering depends on, by digest.
INSERT INTO render_profile (digest, profile) VALUES ($1, $2::text::jsonb) ON CONFLICT DO NOTHING;

-- name: load_profile
-- What a queued message was rendered with.
SELECT profile::text AS profile FROM render_profile WHERE digest = $1;

-- == hits into the ledger (ledger/engagements.py) ==

-- name: remember_events
-- Remember events by their dedupe ids; only the ids that nobody had seen come back.
INSERT INTO event_seen (dedupe)
SELECT dedupe FROM unnest($1::bytea[]) AS t (dedupe) ORDER BY dedupe
ON CONFLICT (dedupe) DO NOTHING
RETURNING dedupe;

-- name: unpark_events
-- Take parked events out to record them; only those that nobody had taken come back, with when they were parked.
WITH mine AS (
    SELECT id FROM parked_event WHERE dedupe = ANY($1::bytea[]) ORDER BY dedupe FOR UPDATE
)
DELETE FROM parked_event p USING mine WHERE p.id = mine.id
RETURNING p.dedupe, p.parked_at;

-- name: park_events
-- Keep events that cannot be recorded now, as they came, with the reason; twice is once.
INSERT INTO parked_event (dedupe, parked_at, source, reason, named, payload, found, recipient_index)
SELECT dedupe, coalesce(parked_at, now()), source, reason, named, payload, found, recipient_index
FROM unnest(
    $1::bytea[], $2::timestamptz[], $3::text[], $4::text[], $5::bytea[], $6::bytea[], $7::bigint[], $8::bytea[]
) AS t (dedupe, parked_at, source, reason, named, payload, found, recipient_index)
ORDER BY dedupe
ON CONFLICT (dedupe) DO NOTHING;

-- name: name_parked
-- Enter the ids $2 that parked events name, each beside its event's dedupe id in $1.
INSERT INTO parked_name (parked, named)
SELECT p.id, t.named FROM unnest($1::bytea[], $2::bytea[]) AS t (dedupe, named)
JOIN parked_event p ON p.dedupe = t.dedupe
ON CONFLICT DO NOTHING;

-- name: repark_event
-- Give a parked event another reason.
UPDATE parked_event SET reason = $2 WHERE dedupe = $1;

-- name: matchable_events
-- The oldest $3 events parked since $2 for one of the reasons $1 whose names lead to more messages than before.
SELECT p.dedupe, p.payload, p.parked_at
FROM parked_event p
CROSS JOIN LATERAL (SELECT array_agg(n.named) AS names FROM parked_name n WHERE n.parked = p.id) n
WHERE p.reason = ANY($1::text[]) AND ($2::timestamptz IS NULL OR p.parked_at >= $2)
    AND messages_named(n.names) > p.found
ORDER BY p.id LIMIT $3;

-- name: drop_parked_beyond
-- Let go of the oldest parked events of each source that has more than $1, of each $2 at most.
WITH beyond AS (
    SELECT id FROM (
        SELECT id, row_number() OVER (PARTITION BY source ORDER BY id DESC) AS place FROM parked_event
    ) ranked WHERE place > $1 ORDER BY id LIMIT $2
)
DELETE FROM parked_event p USING beyond WHERE p.id = beyond.id RETURNING p.source;

-- name: resolve_keys
-- The messages that these keys name, with what an event of theirs touches. The next engagement is asked for, which is
-- found by its index also while PostgreSQL takes the table for an empty one.
SELECT m.key AS named, m.id, m.accepted_at, m.campaign, m.source, m.recipient_index, m.recipient = 'erased' AS erased, m.injected,
    c.ams_mailing, c.campaign_id, m.subscriber IS NOT NULL AS subscribed,
    coalesce((SELECT e.message = m.id FROM engagement e WHERE e.message >= m.id ORDER BY e.message LIMIT 1), false) AS engaged
FROM message m
LEFT JOIN campaign c ON c.id = m.campaign
WHERE m.key = ANY($1::bytea[]);

-- name: count_named
-- To how many messages each of these ids leads. Asked before `resolve_aliases`: what appears in between counts as new.
SELECT named, sum(found)::bigint AS found FROM (
    SELECT key AS named, 1 AS found FROM message WHERE key = ANY($1::bytea[])
    UNION ALL
    SELECT digest, count(*) FROM alias WHERE digest = ANY($1::bytea[]) GROUP BY digest
    UNION ALL
    SELECT s.key, (SELECT count(*) FROM message m WHERE m.submission = s.id) FROM submission s
    WHERE s.key = ANY($1::bytea[])
) counted GROUP BY named;

-- name: resolve_aliases
-- The messages that alias digests or submission keys $1 lead to: those of the recipients $2, and two more of each, which is enough to know that there are several.
WITH led AS MATERIALIZED (
    SELECT t.named, found.message
    FROM unnest($1::bytea[]) AS t (named)
    CROSS JOIN LATERAL (
        -- For each, and materialized: else a plan that is made without statistics reads all messages for every id.
        SELECT a.message FROM alias a
        WHERE a.digest = t.named
            AND (SELECT m.recipient_index FROM message m WHERE m.id = a.message) = ANY($2::bytea[])
        UNION
        (SELECT a.message FROM alias a WHERE a.digest = t.named ORDER BY a.message LIMIT 2)
        UNION
        SELECT m.id FROM submission s JOIN message m ON m.submission = s.id
        WHERE s.key = t.named AND m.recipient_index = ANY($2::bytea[])
        UNION
        (SELECT m.id FROM submission s JOIN message m ON m.submission = s.id WHERE s.key = t.named ORDER BY m.id LIMIT 2)
    ) found
)
SELECT led.named, m.id, m.accepted_at, m.campaign, m.source, m.recipient_index, m.recipient = 'erased' AS erased, m.injected,
    c.ams_mailing, c.campaign_id, m.subscriber IS NOT NULL AS subscribed,
    coalesce((SELECT e.message = m.id FROM engagement e WHERE e.message >= m.id ORDER BY e.message LIMIT 1), false) AS engaged
FROM led
JOIN message m ON m.id = led.message
LEFT JOIN campaign c ON c.id = m.campaign;

-- name: learn_aliases
-- Remember foreign ids of messages; one that is known already stays.
INSERT INTO alias (digest, message)
SELECT digest, message FROM unnest($1::bytea[], $2::bigint[]) AS t (digest, message) ORDER BY digest, message
ON CONFLICT DO NOTHING;

-- name: begin_engagements
-- Write the engagement rows of the messages $1 that are missing, $2 says how, and tell which those were.
INSERT INTO engagement (
    message, opens, clicks, machine_opens, machine_clicks, delivered_at, first_opened_at, last_opened_at,
    first_clicked_at, bounced_at, complained_at, unsubscribed_at
)
SELECT
    message, coalesce(opens, 0), coalesce(clicks, 0), coalesce(machine_opens, 0), coalesce(machine_clicks, 0),
    delivered_at, first_opened_at, last_opened_at, first_clicked_at, bounced_at, complained_at, unsubscribed_at
FROM ROWS FROM (
    unnest($1::bigint[]),
    json_to_recordset($2::json) AS (
        opens integer, clicks integer, machine_opens integer, machine_clicks integer, delivered_at timestamptz,
        first_opened_at timestamptz, last_opened_at timestamptz, first_clicked_at timestamptz, bounced_at timestamptz,
        complained_at timestamptz, unsubscribed_at timestamptz
    )
) AS t (
    message, opens, clicks, machine_opens, machine_clicks, delivered_at, first_opened_at, last_opened_at,
    first_clicked_at, bounced_at, complained_at, unsubscribed_at
)
ORDER BY message
ON CONFLICT (message) DO NOTHING
RETURNING message;

-- name: lock_engagements
-- Hold the engagement rows of these messages, in the one order that cannot deadlock, and read them.
SELECT
    message, opens, clicks, machine_opens, machine_clicks, delivered_at, first_opened_at, last_opened_at,
    first_clicked_at, bounced_at, complained_at, unsubscribed_at
FROM engagement WHERE message = ANY($1::bigint[])
ORDER BY message FOR UPDATE;

-- name: hits_around
-- The opens and clicks of the messages $1 from $4 seconds before the times $2 to as long after the times $3.
SELECT
    e.message, e.recorded_at, e.id, e.type, e.source, e.occurred_at, e.link, e.machine, e.reason, e.url, e.network,
    e.user_agent, e.dedupe
FROM unnest($1::bigint[], $2::timestamptz[], $3::timestamptz[]) AS t (message, first, last)
CROSS JOIN LATERAL (
    SELECT * FROM event
    WHERE event.message = t.message AND event.type IN ('opened', 'clicked')
        AND event.occurred_at BETWEEN t.first - make_interval(secs => $4) AND t.last + make_interval(secs => $4)
    OFFSET 0
) e;

-- name: rejudge_events
-- Label the events $1 to $3 as a machine's, for the reason $4.
UPDATE event e SET machine = true, verdict = 'machine', reason = $4
FROM unnest($1::bigint[], $2::timestamptz[], $3::bigint[]) AS t (message, recorded_at, id)
WHERE e.message = t.message AND e.recorded_at = t.recorded_at AND e.id = t.id;

-- name: tally_events
-- Count the events of these messages by what they say and who said it, those that are gone too.
SELECT
    message, type, source, machine, sum(amount)::bigint AS amount, min(first_at) AS first_at, max(last_at) AS last_at
FROM (
    SELECT message, type, source, machine, 1 AS amount, occurred_at AS first_at, occurred_at AS last_at
    FROM event WHERE message = ANY($1::bigint[])
    UNION ALL
    SELECT message, type, source, machine, amount, first_at, last_at
    FROM event_tally WHERE message = ANY($1::bigint[])
) told
GROUP BY message, type, source, machine;

-- name: set_engagements
-- Write the engagement rows of the messages $1 anew, as the JSON array $2 has them; what it leaves out is none or null.
UPDATE engagement e SET
    opens = coalesce(t.opens, 0), clicks = coalesce(t.clicks, 0),
    machine_opens = coalesce(t.machine_opens, 0), machine_clicks = coalesce(t.machine_clicks, 0),
    delivered_at = t.delivered_at, first_opened_at = t.first_opened_at, last_opened_at = t.last_opened_at,
    first_clicked_at = t.first_clicked_at, bounced_at = t.bounced_at, complained_at = t.complained_at,
    unsubscribed_at = t.unsubscribed_at
FROM ROWS FROM (
    unnest($1::bigint[]),
    json_to_recordset($2::json) AS (
        opens integer, clicks integer, machine_opens integer, machine_clicks integer, delivered_at timestamptz,
        first_opened_at timestamptz, last_opened_at timestamptz, first_clicked_at timestamptz, bounced_at timestamptz,
        complained_at timestamptz, unsubscribed_at timestamptz
    )
) AS t (
    message, opens, clicks, machine_opens, machine_clicks, delivered_at, first_opened_at, last_opened_at,
    first_clicked_at, bounced_at, complained_at, unsubscribed_at
)
WHERE e.message = t.message;

-- name: add_campaign_deltas
-- Append changes of campaign counters.
INSERT INTO campaign_delta (campaign, counter, amount)
SELECT * FROM unnest($1::bigint[], $2::text[], $3::bigint[]);

-- name: suppress_recipients
-- Keep campaign mail from these recipients. The first reason stays; one that was lifted counts anew when the wish is younger.
INSERT INTO suppression (source, recipient_index, reason, message, at)
SELECT DISTINCT ON (source, recipient_index) source, recipient_index, reason, message, at
FROM unnest($1::text[], $2::bytea[], $3::text[], $4::bigint[], $5::timestamptz[])
    AS t (source, recipient_index, reason, message, at)
ORDER BY source, recipient_index, at, message
ON CONFLICT (source, recipient_index) DO UPDATE
SET reason = excluded.reason, message = excluded.message, at = excluded.at, lifted_at = NULL
WHERE suppression.lifted_at < excluded.at;

-- == what the numbers of hits add up to (ledger/numbers.py) ==

-- name: note_numbers
-- Append which numbers of which writers were recorded; no row is waited for.
INSERT INTO hit_span (writer, first, last, settled, lost)
SELECT * FROM unnest($1::bytea[], $2::bigint[], $3::bigint[], $4::bigint[], $5::bigint[]);

-- name: fold_numbers
-- Move what was recorded more than $1 seconds ago into its writer's row.
WITH moved AS (
    DELETE FROM hit_span WHERE recorded_at < now() - make_interval(secs => $1)
    RETURNING writer, first, last, settled, lost, recorded_at
)
INSERT INTO hit_writer (writer, seen, settled, lost, heard_at)
SELECT writer, range_agg(int8range(first, last, '[]')), max(settled), max(lost), max(recorded_at)
FROM moved GROUP BY writer ORDER BY writer
ON CONFLICT (writer) DO UPDATE SET
    seen = hit_writer.seen + excluded.seen, settled = greatest(hit_writer.settled, excluded.settled),
    lost = greatest(hit_writer.lost, excluded.lost), heard_at = greatest(hit_writer.heard_at, excluded.heard_at);

-- name: account_numbers
-- What all writers' numbers add up to: of those that must have come by now, the ones that neither came nor are known to be lost are missing.
WITH young AS (
    SELECT writer, range_agg(int8range(first, last, '[]')) AS seen, max(lost) AS lost FROM hit_span GROUP BY writer
), known AS (
    SELECT
        coalesce(w.seen, '{}') + coalesce(y.seen, '{}') AS seen, coalesce(w.settled, 0) AS settled,
        coalesce(w.lost, 0) AS lost, greatest(w.lost, y.lost) AS told
    FROM hit_writer w FULL JOIN young y USING (writer)
)
SELECT
    coalesce(sum((SELECT sum(upper(r) - lower(r)) FROM unnest(seen) AS r)), 0)::bigint AS recorded,
    coalesce(sum(told), 0)::bigint AS lost,
    coalesce(sum(greatest(0, (
        SELECT sum(upper(r) - lower(r)) FROM unnest(int8multirange(int8range(1, settled + 1)) - seen) AS r
    ) - lost)), 0)::bigint AS missing
FROM known;

-- name: forget_writers
-- Forget trackers that were last heard of more than 60 days ago: no hit of theirs can still arrive.
DELETE FROM hit_writer WHERE heard_at < now() - interval '60 days';

-- == the suppression list in an operator's hands (ledger/suppressions.py) ==

-- name: enter_suppressions
-- Enter recipients by hand: what stands already stays, what was lifted counts again.
INSERT INTO suppression (source, recipient_index, recipient, reason, at)
SELECT DISTINCT ON (source, recipient_index) source, recipient_index, recipient, reason, coalesce(at, now())
FROM unnest($1::text[], $2::bytea[], $3::bytea[], $4::text[], $5::timestamptz[])
    AS t (source, recipient_index, recipient, reason, at)
ORDER BY source, recipient_index, at
ON CONFLICT (source, recipient_index) DO UPDATE
SET reason = excluded.reason, recipient = excluded.recipient, at = excluded.at, lifted_at = NULL, message = NULL
WHERE suppression.lifted_at IS NOT NULL
RETURNING recipient_index;

-- name: lift_suppressions
-- Let mail reach these recipients again: of source $2, or of all where it is null. The entry stays as the record of it, and an event where a message of ours led to it.
WITH lifted AS (
    UPDATE suppression SET lifted_at = now()
    WHERE recipient_index = ANY($1::bytea[]) AND lifted_at IS NULL AND ($2::text IS NULL OR source = $2)
    RETURNING recipient_index, source, message
), told AS (
    INSERT INTO event (message, occurred_at, type, source, dedupe)
    SELECT m.id, now(), 'subscribed', 'operator',
        substr(sha256(m.key || convert_to('lifted ' || lifted.source || ' ' || now(), 'UTF8')), 1, 16)
    FROM lifted JOIN message m ON m.id = lifted.message
)
SELECT recipient_index FROM lifted;

-- name: list_suppressions
-- Who is suppressed, by source and then by person, behind the place ($1, $2): of source $3, or the person $4, when they are given.
SELECT s.source, s.recipient_index, s.recipient AS entered, nullif(m.recipient, 'erased') AS recipient, s.reason, s.at
FROM suppression s LEFT JOIN message m ON m.id = s.message
WHERE s.lifted_at IS NULL
    AND ($1::text IS NULL OR (s.source, s.recipient_index) > ($1, $2::bytea))
    AND ($3::text IS NULL OR s.source = $3)
    AND ($4::bytea IS NULL OR s.recipient_index = $4)
ORDER BY s.source, s.recipient_index LIMIT $5;

-- name: is_suppressed
-- Whether any entry that binds source $1 ($3: of whichever source) keeps mail from this person.
SELECT EXISTS (
    SELECT FROM suppression
    WHERE recipient_index = $2 AND lifted_at IS NULL AND ($3::boolean OR source IN ($1, ''))
) AS suppressed;

-- == events out to AMS (ledger/outbox.py) ==

-- name: withdraw_items
-- Let go of what AMS has not taken yet of events of the campaigns $1 and messages $2 with the urls $3, recorded at $4: one for each.
WITH taken AS (
    SELECT campaign, message, url, recorded_at, count(*) AS amount
    FROM unnest($1::bigint[], $2::bigint[], $3::text[], $4::timestamptz[]) AS t (campaign, message, url, recorded_at)
    GROUP BY campaign, message, url, recorded_at
), waiting AS (
    SELECT o.id, taken.amount,
        row_number() OVER (PARTITION BY o.campaign, o.message, o.url, o.created_at ORDER BY o.id) AS place
    FROM taken JOIN outbox o
        ON o.campaign = taken.campaign AND o.message = taken.message AND o.url = taken.url
        AND o.created_at = taken.recorded_at
)
DELETE FROM outbox o USING waiting WHERE o.id = waiting.id AND waiting.place <= waiting.amount;

-- name: waiting_mailings
-- The mailings that have items waiting, the longest waiting first: a hop from mailing to mailing, not a scan of the items.
WITH RECURSIVE waiting AS (
    (SELECT mailing, id FROM outbox WHERE parked_at IS NULL ORDER BY mailing, id LIMIT 1)
    UNION ALL
    SELECT further.mailing, further.id FROM waiting CROSS JOIN LATERAL (
        SELECT o.mailing, o.id FROM outbox o
        WHERE o.parked_at IS NULL AND o.mailing > waiting.mailing ORDER BY o.mailing, o.id LIMIT 1
    ) further
)
SELECT
    w.mailing, coalesce(s.failures, 0) AS failures, s.last_error, s.held,
    greatest(extract(epoch FROM s.next_at - now()), 0)::double precision AS wait
FROM waiting w LEFT JOIN ams_mailing s USING (mailing)
ORDER BY w.id;

-- name: waiting_items
-- The oldest $2 items of mailing $1, each with its recipient's address.
SELECT o.id, o.url, m.recipient
FROM outbox o LEFT JOIN message m ON m.id = o.message
WHERE o.mailing = $1 AND o.parked_at IS NULL
ORDER BY o.id LIMIT $2;

-- name: settle_items
-- Let items go that AMS has confirmed, and count them.
WITH gone AS (
    DELETE FROM outbox WHERE id = ANY($1::bigint[]) RETURNING campaign
)
INSERT INTO campaign_delta (campaign, counter, amount)
SELECT campaign, 'ams_delivered', count(*) FROM gone GROUP BY campaign;

-- name: park_items
-- Set items aside that AMS refused, each with its answer.
UPDATE outbox o SET parked_at = now(), reason = t.reason
FROM unnest($1::bigint[], $2::text[]) AS t (id, reason)
WHERE o.id = t.id AND o.parked_at IS NULL;

-- name: clear_mailing
-- Forget a mailing's troubles.
DELETE FROM ams_mailing WHERE mailing = $1;

-- name: postpone_mailing
-- Note that mailing $1 failed for the $2th time: not before $3 seconds, with error $4, held for $5 or null.
INSERT INTO ams_mailing (mailing, failures, next_at, last_error, held)
VALUES ($1, $2, now() + make_interval(secs => $3), $4, $5)
ON CONFLICT (mailing) DO UPDATE SET
    failures = excluded.failures, next_at = excluded.next_at, last_error = excluded.last_error, held = excluded.held;

-- name: hasten_mailings
-- AMS answers again: try at once the mailings whose last error begins with $1, the mark of no answer.
UPDATE ams_mailing SET next_at = now() WHERE next_at > now() AND starts_with(last_error, $1);

-- name: outbox_depth
-- How much waits for AMS, for how many seconds the oldest has, and how much stands parked.
SELECT
    count(*) FILTER (WHERE parked_at IS NULL) AS pending,
    count(*) FILTER (WHERE parked_at IS NOT NULL) AS parked,
    coalesce(extract(epoch FROM now() - min(created_at) FILTER (WHERE parked_at IS NULL)), 0)::double precision AS age
FROM outbox;

-- name: note_shown
-- Note that AMS shows $2 addresses as opened and $3 as clicked of the mailings $1, those that are no campaign of ours left out.
INSERT INTO ams_shown (mailing, opened, clicks)
SELECT t.mailing, t.opened, t.clicks FROM unnest($1::bigint[], $2::bigint[], $3::bigint[]) AS t (mailing, opened, clicks)
WHERE EXISTS (SELECT FROM campaign c WHERE c.ams_mailing = t.mailing) ORDER BY t.mailing
ON CONFLICT (mailing) DO UPDATE SET opened = excluded.opened, clicks = excluded.clicks, seen_at = now();

-- name: shown_of_campaign
-- What AMS shows of campaign $1.
SELECT s.opened, s.clicks, s.seen_at FROM campaign c JOIN ams_shown s ON s.mailing = c.ams_mailing WHERE c.id = $1;

-- name: parked_items
-- The newest $1 items that AMS refused.
SELECT o.id, o.parked_at, o.mailing, m.key, o.url, coalesce(o.reason, '') AS reason
FROM outbox o LEFT JOIN message m ON m.id = o.message
WHERE o.parked_at IS NOT NULL ORDER BY o.id DESC LIMIT $1;

-- name: unpark_items
-- Let parked items wait for AMS again.
UPDATE outbox SET parked_at = NULL, reason = NULL WHERE parked_at IS NOT NULL RETURNING mailing;

-- name: retry_mailings
-- Try every mailing again at once, the held ones too.
UPDATE ams_mailing SET next_at = now() WHERE next_at > now();

-- name: rebuild_items
-- Queue items from the events recorded since $1, dated like them so that twice is once while they wait: $2 the url of an open, $3 of an unsubscribe, $4 machines too, $5 never those with this reason.
WITH item AS (
    SELECT
        c.ams_mailing AS mailing, c.id AS campaign, e.message, e.recorded_at, e.id,
        CASE e.type WHEN 'opened' THEN $2::text WHEN 'clicked' THEN e.url ELSE $3::text END AS url
    FROM event e
    JOIN message m ON m.id = e.message
    JOIN campaign c ON c.id = m.campaign
    WHERE c.ams_mailing IS NOT NULL AND e.recorded_at >= $1 AND m.recipient <> 'erased'
        AND m.reason IS DISTINCT FROM 'imported'
        AND e.type IN ('opened', 'clicked', 'unsubscribed')
        AND ($4::boolean OR NOT e.machine) AND split_part(coalesce(e.reason, ''), '/', 1) <> $5::text
)
INSERT INTO outbox (mailing, campaign, message, url, created_at)
SELECT mailing, campaign, message, url, recorded_at FROM item
WHERE url <> '' AND NOT EXISTS (
    SELECT FROM outbox o
    WHERE o.campaign = item.campaign AND o.message = item.message AND o.url = item.url AND o.created_at = item.recorded_at
)
ORDER BY recorded_at, id;

-- == history from elsewhere (ledger/imports.py) ==

-- name: find_import
-- The campaign ($1 source, $2 id), whether it has messages, and whether anything was ever imported into it.
SELECT
    c.id, EXISTS (SELECT FROM message m WHERE m.campaign = c.id) AS mailed,
    EXISTS (SELECT FROM import_progress p WHERE p.campaign = c.id) AS imported
FROM campaign c WHERE c.source = $1 AND c.campaign_id = $2;

-- name: import_places
-- Where the unfinished reports of an import into campaign $1 from $2 go on.
SELECT report, place FROM import_progress WHERE campaign = $1 AND origin = $2 AND place IS NOT NULL;

-- name: begin_import
-- Begin to read the reports $3 from their beginning.
INSERT INTO import_progress (campaign, origin, report, place)
SELECT $1, $2, report, '' FROM unnest($3::text[]) AS t (report)
ON CONFLICT (campaign, origin, report) DO UPDATE SET place = '', at = now();

-- name: reach_import
-- Note where report $3 goes on; null when it is done.
UPDATE import_progress SET place = $4, at = now() WHERE campaign = $1 AND origin = $2 AND report = $3;

-- name: lock_import
-- Let one import at a time write into a campaign: two would wait for each other's rows.
SELECT pg_advisory_xact_lock(1869968502, hashint8($1::bigint));

-- name: import_messages
-- Enter recipients of campaign $1 of source $2 as messages that were sent long ago; $9 is why nothing is injected. A key that exists already gives no row.
WITH incoming AS (
    SELECT * FROM unnest($3::bytea[], $4::timestamptz[], $5::timestamptz[], $6::bytea[], $7::bytea[], $8::text[], $10::text[])
        AS t (key, accepted_at, sent_at, recipient, recipient_index, message_id, original_message_id)
), added AS (
    INSERT INTO message (
        key, accepted_at, campaign, generation, size, links, injected, reason, source, sender, recipient, recipient_index,
        message_id, original_message_id, body_digest
    )
    SELECT
        key, accepted_at, $1, 0, 0, 0, false, $9, $2, '', recipient, recipient_index, message_id, original_message_id, ''
    FROM incoming ORDER BY key
    ON CONFLICT (key) DO NOTHING
    RETURNING id, key
), placed AS (
    INSERT INTO delivery (message, status, settled_at)
    SELECT added.id, 'sent', incoming.sent_at FROM added JOIN incoming USING (key)
), counted AS (
    INSERT INTO campaign_delta (campaign, counter, amount)
    SELECT $1, counter, count(*) FROM added CROSS JOIN (VALUES ('accepted'), ('sent')) change (counter) GROUP BY counter
)
SELECT key FROM added;

-- name: date_imported
-- Date imported messages $1 back: to $2, the first that history tells of them, and sent at $3.
WITH told AS (
    SELECT * FROM unnest($1::bigint[], $2::timestamptz[], $3::timestamptz[]) AS t (id, accepted_at, sent_at)
), sent AS (
    UPDATE delivery d SET settled_at = told.sent_at FROM told
    WHERE d.message = told.id AND told.sent_at < coalesce(d.settled_at, 'infinity')
)
UPDATE message m SET accepted_at = told.accepted_at FROM told
WHERE m.id = told.id AND told.accepted_at < m.accepted_at;

-- name: remember_imported
-- Remember events by their dedupe ids, for ever: history may be imported again at any time. Only the ids that nobody had seen come back.
INSERT INTO event_seen (dedupe, at)
SELECT dedupe, 'infinity' FROM unnest($1::bytea[]) AS t (dedupe) ORDER BY dedupe
ON CONFLICT (dedupe) DO NOTHING
RETURNING dedupe;

-- == events out to sinks (ledger/sinks.py) ==

-- name: enter_sinks
-- Let there be these sinks.
INSERT INTO sink (name) SELECT name FROM unnest($1::text[]) AS t (name) ORDER BY name ON CONFLICT DO NOTHING;

-- name: forget_sinks
-- Forget every sink but these; what others still had to hear stays, in case they come back.
DELETE FROM sink WHERE name <> ALL($1::text[]);

-- name: forget_fresh_events
-- Nobody is to hear of these any more.
DELETE FROM sink_fresh;

-- name: tell_sinks
-- Queue for the sinks $1, of the messages $2, the events $3 recorded at $4 (null: now), as $5; what is told once, and what waits already, is left out.
WITH asked AS (
    SELECT sink, message, event, coalesce(recorded_at, now()) AS recorded_at, kind
    FROM unnest($1::text[], $2::bigint[], $3::bytea[], $4::timestamptz[], $5::text[])
        AS t (sink, message, event, recorded_at, kind)
), first AS (
    INSERT INTO sink_once (sink, message, kind)
    SELECT DISTINCT sink, message, kind FROM asked WHERE kind <> '' ORDER BY sink, message, kind
    ON CONFLICT DO NOTHING
    RETURNING sink, message, kind
), wanted AS (
    SELECT sink, message, event, recorded_at, kind FROM asked WHERE kind = ''
    UNION ALL
    (SELECT DISTINCT ON (sink, message, kind) sink, message, event, recorded_at, kind
     FROM asked JOIN first USING (sink, message, kind) ORDER BY sink, message, kind, recorded_at, event)
)
INSERT INTO sink_item (sink, message, event, recorded_at, kind)
SELECT sink, message, event, recorded_at, kind FROM wanted
WHERE NOT EXISTS (
    SELECT FROM sink_item i
    WHERE i.sink = wanted.sink AND i.message = wanted.message AND i.event = wanted.event
)
ORDER BY recorded_at;

-- name: withdraw_from_sinks
-- Let go of what the sinks $1 have not taken yet of the events $3 of the messages $2.
DELETE FROM sink_item i USING unnest($2::bigint[], $3::bytea[]) AS t (message, event)
WHERE i.sink = ANY($1::text[]) AND i.message = t.message AND i.event = t.event;

-- name: take_fresh_events
-- Take up to $1 events that no courier recorded, with what decides who hears of them.
WITH taken AS (
    DELETE FROM sink_fresh
    WHERE id IN (SELECT id FROM sink_fresh ORDER BY id LIMIT $1 FOR UPDATE SKIP LOCKED)
    RETURNING message, event, recorded_at
)
SELECT
    t.message, t.event, t.recorded_at, e.type, e.source AS teller, e.machine, e.bounce, m.injected, m.source,
    m.subscriber IS NOT NULL AS subscribed, c.campaign_id
FROM taken t
JOIN event e ON e.message = t.message AND e.recorded_at = t.recorded_at AND e.dedupe = t.event
JOIN message m ON m.id = t.message
LEFT JOIN campaign c ON c.id = m.campaign
WHERE m.recipient <> 'erased';

-- name: events_since
-- The next $4 events behind the place ($2, $3) of those recorded since $1, with what decides who hears of them.
SELECT
    e.id, e.message, e.dedupe AS event, e.recorded_at, e.type, e.source AS teller, e.machine, e.bounce, m.injected,
    m.source, m.subscriber IS NOT NULL AS subscribed, c.campaign_id
FROM event e
JOIN message m ON m.id = e.message
LEFT JOIN campaign c ON c.id = m.campaign
WHERE e.recorded_at >= $1 AND ($2::timestamptz IS NULL OR (e.recorded_at, e.id) > ($2, $3::bigint))
    AND m.recipient <> 'erased'
ORDER BY e.recorded_at, e.id LIMIT $4;

-- name: sink_state
-- How delivery to sink $1 goes; seconds until it may be tried.
SELECT failures, last_error, held, greatest(extract(epoch FROM next_at - now()), 0)::double precision AS wait
FROM sink WHERE name = $1;

-- name: sink_waiting
-- The oldest $2 items of sink $1, each with its event as it stands now; without one where that is gone.
SELECT
    i.id, i.event, i.kind, i.tried_at IS NOT NULL AS tried, e.type, e.source AS teller, e.occurred_at, e.recorded_at,
    e.url, e.machine, e.verdict, e.reason, e.bounce, e.smtp_code, e.enhanced_code, e.description, m.key, m.message_id,
    m.recipient, m.subscriber, m.source, c.campaign_id
FROM (SELECT * FROM sink_item WHERE sink = $1 AND parked_at IS NULL ORDER BY id LIMIT $2) i
LEFT JOIN LATERAL (
    SELECT * FROM event
    WHERE event.message = i.message AND event.recorded_at = i.recorded_at AND event.dedupe = i.event LIMIT 1
) e ON true
LEFT JOIN message m ON m.id = i.message
LEFT JOIN campaign c ON c.id = m.campaign
ORDER BY i.id;

-- name: try_sink_items
-- Commit the intent to tell these items; no row for one of which somebody else had it, or that is gone.
UPDATE sink_item SET tried_at = now()
WHERE id = ANY($1::bigint[]) AND tried_at IS NULL AND parked_at IS NULL RETURNING id;

-- name: untry_sink_items
-- Take the intent back: they were surely not taken.
UPDATE sink_item SET tried_at = NULL WHERE id = ANY($1::bigint[]);

-- name: drop_sink_items_by_id
-- Let these items go.
DELETE FROM sink_item WHERE id = ANY($1::bigint[]);

-- name: park_sink_items
-- Set items aside, each with its reason.
UPDATE sink_item i SET parked_at = now(), reason = t.reason
FROM unnest($1::bigint[], $2::text[]) AS t (id, reason)
WHERE i.id = t.id AND i.parked_at IS NULL;

-- name: clear_sink
-- Forget a sink's troubles.
UPDATE sink SET failures = 0, next_at = now(), last_error = NULL, held = NULL WHERE name = $1;

-- name: postpone_sink
-- Note that sink $1 failed for the $2th time: not before $3 seconds, with error $4, held for $5 or null.
UPDATE sink SET failures = $2, next_at = now() + make_interval(secs => $3), last_error = $4, held = $5 WHERE name = $1;

-- name: sink_standings
-- Every sink that is configured or has something to hear, with how much, and how it goes.
SELECT
    coalesce(s.name, i.sink) AS name, s.name IS NOT NULL AS configured, coalesce(s.failures, 0) AS failures,
    s.last_error, s.held, coalesce(i.pending, 0) AS pending, coalesce(i.parked, 0) AS parked,
    coalesce(i.age, 0)::double precision AS oldest_seconds
FROM sink s FULL JOIN (
    SELECT
        sink, count(*) FILTER (WHERE parked_at IS NULL) AS pending, count(*) FILTER (WHERE parked_at IS NOT NULL) AS parked,
        extract(epoch FROM now() - min(queued_at) FILTER (WHERE parked_at IS NULL)) AS age
    FROM sink_item WHERE $1::text IS NULL OR sink = $1 GROUP BY sink
) i ON i.sink = s.name
WHERE $1::text IS NULL OR coalesce(s.name, i.sink) = $1
ORDER BY 1;

-- name: parked_sink_items
-- The newest $2 parked items of sink $1, with what they tell of.
SELECT i.id, i.parked_at, i.reason, e.type, e.occurred_at, m.key
FROM (SELECT * FROM sink_item WHERE sink = $1 AND parked_at IS NOT NULL ORDER BY id DESC LIMIT $2) i
LEFT JOIN LATERAL (
    SELECT * FROM event
    WHERE event.message = i.message AND event.recorded_at = i.recorded_at AND event.dedupe = i.event LIMIT 1
) e ON true
LEFT JOIN message m ON m.id = i.message
ORDER BY i.id DESC;

-- name: unpark_sink_items
-- Let the parked items of sink $1 wait again, and try it at once; what is in doubt is told again.
WITH retried AS (UPDATE sink SET next_at = now() WHERE name = $1)
UPDATE sink_item SET parked_at = NULL, reason = NULL, tried_at = NULL
WHERE sink = $1 AND parked_at IS NOT NULL RETURNING id;

-- == what an operator asks (ledger/reports.py) ==

-- name: plan_afresh
-- Plan this transaction's statements for their very values: the filters below are optional, and only some have an index.
SET LOCAL plan_cache_mode = force_custom_plan;

-- name: report_messages
-- Messages, newest first, with their state and engagement; each filter is null or must hold. $10: engaged, bounced or unsubscribed.
SELECT
    m.id, m.key, m.message_id, c.campaign_id, m.source, m.recipient, m.original_message_id,
    coalesce(d.status::text, 'accepted') AS status, m.accepted_at,
    CASE WHEN d.status = 'sent' THEN d.settled_at END AS sent_at, d.reply AS upstream_reply,
    m.injected, m.reason, m.links,
    coalesce(e.opens, 0) AS opens, coalesce(e.clicks, 0) AS clicks,
    coalesce(e.machine_opens, 0) AS machine_opens, coalesce(e.machine_clicks, 0) AS machine_clicks,
    e.delivered_at IS NOT NULL AS delivered, e.first_opened_at IS NOT NULL AS opened,
    e.first_clicked_at IS NOT NULL AS clicked, e.bounced_at IS NOT NULL AS bounced,
    e.complained_at IS NOT NULL AS complained, e.unsubscribed_at IS NOT NULL AS unsubscribed,
    e.first_opened_at, e.last_opened_at, e.first_clicked_at
FROM message m
LEFT JOIN delivery d ON d.message = m.id
LEFT JOIN campaign c ON c.id = m.campaign
LEFT JOIN engagement e ON e.message = m.id
WHERE ($1::bigint IS NULL OR m.id < $1)
    AND ($2::bigint IS NULL OR m.campaign = $2)
    AND ($3::text IS NULL OR m.source = $3)
    AND ($4::text IS NULL OR d.status = $4::delivery_status)
    AND ($5::bytea IS NULL OR m.recipient_index = $5)
    AND ($6::bigint IS NULL OR m.submission = $6)
    AND ($7::bigint[] IS NULL OR m.id = ANY($7))
    AND ($8::timestamptz IS NULL OR m.accepted_at >= $8)
    AND CASE $10::text
        WHEN 'engaged' THEN e.first_opened_at IS NOT NULL OR e.first_clicked_at IS NOT NULL
        WHEN 'bounced' THEN e.bounced_at IS NOT NULL
        WHEN 'unsubscribed' THEN e.unsubscribed_at IS NOT NULL
        ELSE true
    END
ORDER BY m.id DESC LIMIT $9;

-- name: report_messages_of_recipient
-- Every message of one person, by the blind index: campaign by campaign, because the index is led by the campaign.
SELECT found.id FROM campaign c CROSS JOIN LATERAL (
    SELECT m.id FROM message m WHERE m.campaign = c.id AND m.recipient_index = $1
) found
UNION ALL
SELECT m.id FROM message m WHERE m.campaign IS NULL AND m.recipient_index = $1;

-- name: report_message_by_key
-- The message with this key.
SELECT id, message_id FROM message WHERE key = $1;

-- name: report_messages_by_keys
-- The messages with these keys.
SELECT id FROM message WHERE key = ANY($1::bytea[]);

-- name: report_messages_by_alias
-- The messages that a foreign id names.
SELECT message AS id FROM alias WHERE digest = $1 ORDER BY message DESC LIMIT 1000;

-- name: report_submission
-- The submission with this key.
SELECT id FROM submission WHERE key = $1;

-- name: report_events_of_messages
-- The newest $2 events of each of these messages, oldest first.
SELECT
    e.message, e.type, e.source, e.occurred_at, e.url, e.machine, e.reason, e.verdict, e.step, e.bounce, e.smtp_code, e.enhanced_code, e.description
FROM unnest($1::bigint[]) AS asked (message) CROSS JOIN LATERAL (
    SELECT e.* FROM event e WHERE e.message = asked.message
    ORDER BY e.occurred_at DESC, e.recorded_at DESC, e.id DESC LIMIT $2
) e
ORDER BY e.message, e.occurred_at, e.recorded_at, e.id;

-- name: report_messages_of_campaign
-- Up to $2 messages of a campaign.
SELECT id FROM message WHERE campaign = $1 LIMIT $2;

-- name: report_events
-- Events, newest recorded first, with the message that each tells of; each filter is null or must hold.
SELECT
    e.id, e.recorded_at, e.type, e.source, e.occurred_at, e.url, e.machine, e.reason, e.verdict, e.step, e.bounce, e.smtp_code, e.enhanced_code, e.description,
    m.key, m.message_id, m.recipient, c.campaign_id
FROM event e
JOIN message m ON m.id = e.message
LEFT JOIN campaign c ON c.id = m.campaign
WHERE ($1::timestamptz IS NULL OR (e.recorded_at, e.id) < ($1, $2::bigint))
    AND ($3::bigint IS NULL OR m.campaign = $3)
    AND ($4::text IS NULL OR m.source = $4)
    AND ($5::text IS NULL OR e.type = $5)
    AND ($6::timestamptz IS NULL OR e.recorded_at >= $6)
ORDER BY e.recorded_at DESC, e.id DESC LIMIT $7;

-- name: report_events_of
-- The same for the events of messages $8 alone, message by message: walking back in time to few messages would read all others.
SELECT
    e.id, e.recorded_at, e.type, e.source, e.occurred_at, e.url, e.machine, e.reason, e.verdict, e.step, e.bounce, e.smtp_code, e.enhanced_code, e.description,
    m.key, m.message_id, m.recipient, c.campaign_id
FROM unnest($8::bigint[]) AS asked (message)
CROSS JOIN LATERAL (SELECT * FROM event WHERE event.message = asked.message OFFSET 0) e
JOIN message m ON m.id = asked.message
LEFT JOIN campaign c ON c.id = m.campaign
WHERE ($1::timestamptz IS NULL OR (e.recorded_at, e.id) < ($1, $2::bigint))
    AND ($3::bigint IS NULL OR m.campaign = $3)
    AND ($4::text IS NULL OR m.source = $4)
    AND ($5::text IS NULL OR e.type = $5)
    AND ($6::timestamptz IS NULL OR e.recorded_at >= $6)
ORDER BY e.recorded_at DESC, e.id DESC LIMIT $7;

-- name: report_campaigns
-- Campaigns, newest first; each filter is null or must hold.
SELECT
    c.id, c.source, c.campaign_id, c.to_send, c.paused_at IS NOT NULL AS paused, c.closed, c.send_window, c.rate,
    coalesce(a.held, a.last_error) AS last_error
FROM campaign c
LEFT JOIN ams_mailing a ON a.mailing = c.ams_mailing
WHERE ($1::bigint IS NULL OR c.id < $1)
    AND ($2::text IS NULL OR c.campaign_id = $2)
    AND ($3::text IS NULL OR c.source = $3)
ORDER BY c.id DESC LIMIT $4;

-- name: report_counts
-- The counters of these campaigns: what is folded and what is not yet.
SELECT campaign, counter, sum(amount)::bigint AS value
FROM (
    SELECT campaign, counter, value AS amount FROM campaign_count WHERE campaign = ANY($1::bigint[])
    UNION ALL
    SELECT campaign, counter, amount FROM campaign_delta WHERE campaign = ANY($1::bigint[])
) part
GROUP BY campaign, counter;

-- name: report_outbox
-- What AMS has yet to hear of these campaigns.
SELECT
    campaign, count(*) FILTER (WHERE parked_at IS NULL) AS pending, count(*) FILTER (WHERE parked_at IS NOT NULL) AS parked
FROM outbox WHERE campaign = ANY($1::bigint[]) GROUP BY campaign;

-- name: report_correlated
-- Of the newest $2 messages of each of these campaigns: how many are sent, and of them carry an id of ours or came with one that we know.
WITH sample AS MATERIALIZED (
    SELECT asked.campaign, newest.*
    FROM unnest($1::bigint[]) AS asked (campaign) CROSS JOIN LATERAL (
        SELECT
            m.id,
            coalesce(m.reason NOT IN ('dkim_signed', 'imported'), true) OR m.original_message_id IS NOT NULL AS named
        FROM message m WHERE m.campaign = asked.campaign ORDER BY m.id DESC LIMIT $2
    ) newest
)
SELECT s.campaign, count(*) AS sent, count(*) FILTER (WHERE s.named) AS named
FROM sample s JOIN delivery d ON d.message = s.id AND d.status = 'sent'
GROUP BY s.campaign;

-- name: report_untouched
-- The newest $2 messages, of campaign $1 when it is given, by what was injected or why not.
SELECT reason, injected, count(*) AS messages
FROM (
    SELECT reason, injected FROM message
    WHERE ($1::bigint IS NULL OR campaign = $1) ORDER BY id DESC LIMIT $2
) sample
GROUP BY reason, injected ORDER BY messages DESC, reason NULLS FIRST;

-- name: report_processes
-- Which roles are alive, by their leases.
SELECT role, count(*) AS processes FROM process WHERE lease_until > now() GROUP BY role ORDER BY role;

-- name: report_upstreams
-- How the living processes find each upstream.
SELECT
    u.upstream,
    count(*) AS processes,
    count(u.left_since) AS left_by,
    min(u.left_since) AS left_since,
    (array_agg(u.reason ORDER BY u.left_since) FILTER (WHERE u.left_since IS NOT NULL))[1] AS reason
FROM upstream_state u JOIN process p ON p.id = u.process
WHERE p.lease_until > now()
GROUP BY u.upstream ORDER BY u.upstream;

-- name: report_unmatched
-- Parked events, newest first; each filter is null or must hold.
SELECT id, parked_at, source, reason, named FROM parked_event
WHERE ($1::bigint IS NULL OR id < $1) AND ($2::text IS NULL OR source = $2)
ORDER BY id DESC LIMIT $3;

-- name: report_unmatched_counts
-- How many events stand parked, by who told them and why.
SELECT source, reason, count(*) AS events FROM parked_event GROUP BY source, reason ORDER BY events DESC, source, reason;

-- name: pause_campaign
-- Set the operator's hold ($2 true) or lift it; the first hold's time stays.
UPDATE campaign
SET paused_at = CASE WHEN $2::boolean THEN coalesce(paused_at, now()) END,
    rate_epoch = rate_epoch + (NOT $2::boolean)::int
WHERE id = $1;

-- name: expect_campaign
-- Say how many messages a campaign will have; null when nobody knows.
UPDATE campaign SET to_send = $2 WHERE id = $1;

-- name: window_campaign
-- Give a campaign a send window of its own; null takes it away. $3: it is closed now.
UPDATE campaign SET send_window = $2, closed = $3, rate_epoch = rate_epoch + (NOT $3::boolean)::int WHERE id = $1;

-- name: rate_campaign
-- Give a campaign a rate of its own; null takes it away.
UPDATE campaign SET rate = $2, rate_epoch = rate_epoch + 1 WHERE id = $1;

-- name: windowed_campaigns
-- The campaigns with a send window of their own, and those that are closed.
SELECT id, send_window, closed FROM campaign WHERE send_window IS NOT NULL OR closed;

-- name: close_campaigns
-- Close campaigns $1, and open campaigns $2.
UPDATE campaign SET closed = id = ANY($1::bigint[]), rate_epoch = rate_epoch + (id = ANY($2::bigint[]))::int
WHERE id = ANY($1::bigint[]) OR id = ANY($2::bigint[]);

-- name: close_others
-- Close every campaign without a window of its own ($1 true), or open them.
UPDATE campaign SET closed = $1, rate_epoch = rate_epoch + (NOT $1::boolean)::int
WHERE send_window IS NULL AND closed <> $1::boolean;

-- name: changed_campaigns
-- Up to $1 campaigns whose counts changed since they were last derived anew, longest ago first.
SELECT id FROM campaign WHERE folded_at IS NOT NULL AND (counted_at IS NULL OR folded_at > counted_at)
ORDER BY counted_at NULLS FIRST LIMIT $1;

-- name: fold_counts
-- Move up to $1 appended deltas into the counters; several folders are safe, and no reader sees a delta twice or not at all.
WITH moved AS (
    DELETE FROM campaign_delta
    WHERE ctid = ANY(ARRAY(SELECT ctid FROM campaign_delta LIMIT $1 FOR UPDATE SKIP LOCKED))
    RETURNING campaign, counter, amount
), marked AS (
    UPDATE campaign SET folded_at = now() WHERE id IN (SELECT campaign FROM moved)
), folded AS (
    INSERT INTO campaign_count (campaign, counter, value)
    SELECT campaign, counter, sum(amount) FROM moved GROUP BY campaign, counter ORDER BY campaign, counter
    ON CONFLICT (campaign, counter) DO UPDATE SET value = campaign_count.value + excluded.value
)
SELECT count(*)::bigint AS moved FROM moved;

-- name: lock_counts
-- Let one recount run at a time: two that found the same drift would both correct it.
SELECT pg_advisory_xact_lock(1869968500);

-- name: sync_counts
-- Recount a campaign from its rows, and append the difference to what was counted: one snapshot, so work in flight is no drift.
WITH derived AS (
    SELECT v.counter, v.value
    FROM (
        SELECT
            count(*) AS accepted,
            count(*) FILTER (WHERE d.status IN ('queued', 'sending')) AS queued,
            count(*) FILTER (WHERE d.status = 'sent') AS sent,
            count(*) FILTER (WHERE d.status = 'failed') AS failed,
            count(*) FILTER (WHERE d.status = 'refused') AS refused,
            count(*) FILTER (WHERE d.status = 'suppressed') AS suppressed,
            count(e.delivered_at) AS delivered,
            coalesce(sum(e.opens), 0)::bigint AS opens,
            count(e.first_opened_at) AS unique_opens,
            coalesce(sum(e.clicks), 0)::bigint AS clicks,
            count(e.first_clicked_at) AS unique_clicks,
            count(e.bounced_at) AS bounces,
            count(e.complained_at) AS complaints,
            count(e.unsubscribed_at) AS unsubscribes,
            coalesce(sum(e.machine_opens), 0)::bigint AS machine_opens,
            coalesce(sum(e.machine_clicks), 0)::bigint AS machine_clicks
        FROM message m
        LEFT JOIN delivery d ON d.message = m.id
        LEFT JOIN engagement e ON e.message = m.id
        WHERE m.campaign = $1
    ) t
    CROSS JOIN LATERAL (VALUES
        ('accepted', t.accepted), ('queued', t.queued), ('sent', t.sent), ('failed', t.failed), ('refused', t.refused),
        ('suppressed', t.suppressed), ('delivered', t.delivered), ('opens', t.opens), ('unique_opens', t.unique_opens),
        ('clicks', t.clicks), ('unique_clicks', t.unique_clicks), ('bounces', t.bounces),
        ('complaints', t.complaints), ('unsubscribes', t.unsubscribes), ('machine_opens', t.machine_opens),
        ('machine_clicks', t.machine_clicks)
    ) v (counter, value)
), recorded AS (
    SELECT counter, sum(amount)::bigint AS value
    FROM (
        SELECT counter, value AS amount FROM campaign_count WHERE campaign = $1
        UNION ALL
        SELECT counter, amount FROM campaign_delta WHERE campaign = $1
    ) part
    GROUP BY counter
), compared AS (
    SELECT derived.counter, derived.value AS derived, coalesce(recorded.value, 0) AS recorded
    FROM derived LEFT JOIN recorded USING (counter)
), corrected AS (
    INSERT INTO campaign_delta (campaign, counter, amount)
    SELECT $1, counter, derived - recorded FROM compared WHERE derived <> recorded
), marked AS (
    UPDATE campaign SET counted_at = now() WHERE id = $1
)
SELECT counter, derived, recorded FROM compared ORDER BY counter;

-- == erasure, retention and sealing (ledger/erasure.py, ledger/retention.py, ledger/resealing.py) ==

-- name: hold_deliveries
-- Hold these messages' states until the transaction ends. What is read of them is read by a later statement: one that waits for a lock sees the locked rows as they are, and the others as they were.
SELECT message FROM delivery WHERE message = ANY($1::bigint[]) ORDER BY message FOR UPDATE;

-- name: read_messages
-- All that may name somebody in these messages, and where they stand. `engaged`: somebody who is alive has it in hand.
SELECT
    m.id, m.key, m.recipient, m.sender, m.message_id, m.original_message_id, d.status::text AS status, d.reply,
    d.body_day, d.body, coalesce(p.lease_until > now(), false) AS engaged
FROM delivery d
JOIN message m ON m.id = d.message
LEFT JOIN process p ON p.id = d.worker
WHERE d.message = ANY($1::bigint[])
ORDER BY d.message;

-- name: end_erased
-- End messages that wait, with the words $2: a recipient who is erased is sent nothing. What was never answered is refused.
WITH old AS (
    SELECT d.message, d.status, m.campaign, m.key FROM delivery d JOIN message m ON m.id = d.message
    WHERE d.message = ANY($1::bigint[]) AND d.status IN ('accepted', 'queued', 'sending')
), moved AS (
    UPDATE delivery d
    SET status = (CASE old.status WHEN 'accepted' THEN 'refused' ELSE 'failed' END)::delivery_status,
        settled_at = now(), next_at = NULL, worker = NULL, body = NULL, body_day = NULL, reply = $2, turn = d.turn + 1
    FROM old WHERE d.message = old.message
    RETURNING d.message, d.turn, d.status
), told AS (
    INSERT INTO event (message, occurred_at, type, source, reason, dedupe)
    SELECT old.message, now(), 'failed', 'operator', $2,
        substr(sha256(old.key || convert_to('erased ' || moved.turn, 'UTF8')), 1, 16)
    FROM old JOIN moved USING (message) WHERE moved.status = 'failed'
), counted AS (
    INSERT INTO campaign_delta (campaign, counter, amount)
    SELECT campaign, counter, sum(amount) FROM (
        SELECT old.campaign, moved.status::text AS counter, 1 AS amount FROM old JOIN moved USING (message)
        UNION ALL
        SELECT campaign, 'queued', -1 FROM old WHERE status IN ('queued', 'sending')
    ) change WHERE campaign IS NOT NULL GROUP BY campaign, counter
)
SELECT message FROM moved WHERE status = 'failed';

-- name: erase_messages
-- Take from settled messages who they went to, and give them words that name nobody; $6: nor may they be found by their recipient any more. A repeat of what failed becomes a new message: nobody knows where this one goes.
WITH word AS (
    SELECT * FROM unnest($1::bigint[], $2::bytea[], $3::text[], $4::text[], $5::text[])
        AS t (id, sender, message_id, original_message_id, reply)
), settled AS (
    UPDATE delivery d SET reply = word.reply, turn = d.turn + (d.status IN ('failed', 'refused'))::int
    FROM word
    WHERE d.message = word.id AND (d.reply IS DISTINCT FROM word.reply OR d.status IN ('failed', 'refused'))
)
UPDATE message m
SET recipient = 'erased', sender = word.sender, message_id = word.message_id,
    original_message_id = word.original_message_id, subscriber = NULL,
    recipient_index = CASE WHEN $6::boolean THEN ''::bytea ELSE m.recipient_index END,
    body_digest = CASE WHEN d.status IN ('failed', 'refused') THEN ''::bytea ELSE m.body_digest END
FROM word JOIN delivery d ON d.message = word.id WHERE m.id = word.id;

-- name: erase_visitors
-- Take from the events of these messages where from, and with what program, somebody came, and what a provider sent.
UPDATE event SET network = NULL, user_agent = NULL, raw = NULL
WHERE message = ANY($1::bigint[]) AND (network IS NOT NULL OR user_agent IS NOT NULL OR raw IS NOT NULL);

-- name: worded_events
-- The events of these messages that hold words of strangers.
SELECT recorded_at, id, message, url, reason, description FROM event
WHERE message = ANY($1::bigint[]) AND (url IS NOT NULL OR reason IS NOT NULL OR description IS NOT NULL);

-- name: reword_events
-- Give events other words; what a provider sent goes as a whole.
UPDATE event e SET url = t.url, reason = t.reason, description = t.description, raw = NULL
FROM unnest($1::timestamptz[], $2::bigint[], $3::bigint[], $4::text[], $5::text[], $6::text[])
    AS t (recorded_at, id, message, url, reason, description)
WHERE e.message = t.message AND e.recorded_at = t.recorded_at AND e.id = t.id
RETURNING e.id;

-- name: drop_items
-- Let go of what AMS was to hear of these messages: it would be told who they went to.
DELETE FROM outbox WHERE message = ANY($1::bigint[]) RETURNING id;

-- name: drop_sink_items
-- Let go of what sinks were to hear of these messages, for the same reason.
DELETE FROM sink_item WHERE message = ANY($1::bigint[]) RETURNING id;

-- name: drop_items_by_id
-- Let go of these items without a word to AMS, and without counting them as told.
DELETE FROM outbox WHERE id = ANY($1::bigint[]);

-- name: drop_bodies
-- Free these bodies (days $1, ids $2), unless another message needs them.
DELETE FROM body b USING unnest($1::date[], $2::bigint[]) AS t (day, id)
WHERE b.day = t.day AND b.id = t.id AND NOT EXISTS (SELECT FROM delivery d WHERE d.body = t.id)
RETURNING b.id;

-- name: drop_parked_of
-- Let go of parked events that name these keys.
DELETE FROM parked_event
WHERE named = ANY($1::bytea[]) OR id IN (SELECT parked FROM parked_name WHERE named = ANY($1::bytea[])) RETURNING id;

-- name: drop_parked_to
-- Let go of parked events that name this recipient.
DELETE FROM parked_event WHERE recipient_index = $1 RETURNING id;

-- name: drop_parked_naming
-- Let go of parked events in which an address stands: $1, in octets as `encode` spells them.
DELETE FROM parked_event WHERE encode(payload, 'escape') ~* $1::text RETURNING id;

-- name: sealed_parked
-- The next $2 parked events behind $1 whose payload is sealed.
SELECT id, payload FROM parked_event WHERE id > $1 AND substr(payload, 1, 2) = '\xc100' ORDER BY id LIMIT $2;

-- name: drop_parked_by_id
-- Let go of these parked events.
DELETE FROM parked_event WHERE id = ANY($1::bigint[]) RETURNING id;

-- name: drop_items_naming
-- Let go of what AMS was to hear about a link in which an address stands.
DELETE FROM outbox WHERE url ~* $1::text RETURNING id;

-- name: reword_items
-- Give what AMS answered other words where an address stands in them.
UPDATE outbox SET reason = regexp_replace(reason, $1::text, $2::text, 'gi') WHERE reason ~* $1::text RETURNING id;

-- name: reword_mailings
-- The same for the troubles of mailings.
UPDATE ams_mailing
SET last_error = regexp_replace(last_error, $1::text, $2::text, 'gi'), held = regexp_replace(held, $1::text, $2::text, 'gi')
WHERE last_error ~* $1::text OR held ~* $1::text RETURNING mailing;

-- name: reword_sink_items
-- Give what sinks answered other words where an address stands in them.
UPDATE sink_item SET reason = regexp_replace(reason, $1::text, $2::text, 'gi') WHERE reason ~* $1::text RETURNING id;

-- name: reword_sinks
-- The same for the troubles of sinks.
UPDATE sink
SET last_error = regexp_replace(last_error, $1::text, $2::text, 'gi'), held = regexp_replace(held, $1::text, $2::text, 'gi')
WHERE last_error ~* $1::text OR held ~* $1::text RETURNING name;

-- name: suppress_erased
-- Keep campaign mail of every source from the person $1, of whom nothing but this index is left.
INSERT INTO suppression (source, recipient_index, reason) VALUES ('', $1, $2)
ON CONFLICT (source, recipient_index)
DO UPDATE SET reason = excluded.reason, at = excluded.at, lifted_at = NULL, message = NULL
WHERE suppression.lifted_at IS NOT NULL;

-- name: unname_suppressions
-- Let the suppressions of a person stand for an index alone.
UPDATE suppression SET recipient = NULL WHERE recipient_index = $1 AND recipient IS NOT NULL RETURNING source;

-- name: message_span
-- The first and the last message there is.
SELECT min(id) AS first, max(id) AS last FROM message;

-- name: messages_naming
-- Of the messages $1 to $2, those that name an address in other words than their recipient: $3 in text, $4 in octets; and those whose sender is sealed, to be looked at.
SELECT id, sender, message_id, original_message_id FROM message
WHERE id BETWEEN $1 AND $2
    AND (
        substr(sender, 1, 2) = '\xc100' OR encode(sender, 'escape') ~* $4::text
        OR message_id ~* $3::text OR original_message_id ~* $3::text
    );

-- name: reword_messages
-- Give messages words that name nobody.
UPDATE message m SET sender = t.sender, message_id = t.message_id, original_message_id = t.original_message_id
FROM unnest($1::bigint[], $2::bytea[], $3::text[], $4::text[]) AS t (id, sender, message_id, original_message_id)
WHERE m.id = t.id RETURNING m.id;

-- name: reword_replies
-- Reword the replies of the messages $1 to $2 that name an address.
UPDATE delivery SET reply = regexp_replace(reply, $3::text, $4::text, 'gi')
WHERE message BETWEEN $1 AND $2 AND reply ~* $3::text AND NOT starts_with(reply, chr(14)) RETURNING message;

-- name: sealed_replies
-- The sealed replies of the messages $1 to $2.
SELECT message, reply FROM delivery WHERE message BETWEEN $1 AND $2 AND starts_with(reply, chr(14));

-- name: exchange_replies
-- Put the words $3 in the place of $2 in the states of the messages $1, where they still stand.
UPDATE delivery d SET reply = t.after FROM unnest($1::bigint[], $2::text[], $3::text[]) AS t (message, before, after)
WHERE d.message = t.message AND d.reply = t.before RETURNING d.message;

-- name: events_naming
-- The events of the messages $1 to $2 that name an address; and those in which something is sealed, to be looked at.
SELECT * FROM (
    SELECT
        recorded_at, id, message, url, reason, description, raw,
        coalesce(url ~* $3::text, false) OR coalesce(reason ~* $3::text, false)
        OR coalesce(description ~* $3::text, false) OR coalesce(encode(raw, 'escape') ~* $4::text, false) AS named
    FROM event WHERE message BETWEEN $1 AND $2
) looked
WHERE named OR starts_with(reason, chr(14)) OR starts_with(description, chr(14)) OR substr(raw, 1, 2) = '\xc100';

-- name: bodies_naming
-- The next $4 bodies behind ($2, $3), and whether one of the spellings $1 of an address stands in them; none where it is sealed.
SELECT
    b.day, b.id,
    CASE WHEN substr(b.envelope, 1, 2) <> '\xc100' AND substr(b.content, 1, 2) <> '\xc100' THEN EXISTS (
        SELECT FROM unnest($1::bytea[]) AS t (form)
        WHERE position(form IN b.envelope) > 0 OR position(form IN b.content) > 0
    ) END AS names
FROM body b WHERE (b.day, b.id) > ($2::date, $3::bigint) ORDER BY b.day, b.id LIMIT $4;

-- name: sealable_messages
-- The addresses of the messages $1 to $2, and who their recipients are in listmonk.
SELECT id, sender, recipient, subscriber, recipient = 'erased' AS erased FROM message WHERE id BETWEEN $1 AND $2;

-- name: exchange_addresses
-- Give messages $1 the senders $3 for $2, the recipients $5 for $4 and the subscribers $7 for $6, where these still stand.
UPDATE message m SET sender = t.sender, recipient = t.recipient, subscriber = t.subscriber
FROM unnest($1::bigint[], $2::bytea[], $3::bytea[], $4::bytea[], $5::bytea[], $6::bytea[], $7::bytea[])
    AS t (id, old_sender, sender, old_recipient, recipient, old_subscriber, subscriber)
WHERE m.id = t.id AND m.sender = t.old_sender AND m.recipient = t.old_recipient
    AND m.subscriber IS NOT DISTINCT FROM t.old_subscriber
RETURNING m.id;

-- name: sealable_replies
-- The replies of the messages $1 to $2.
SELECT message, reply FROM delivery WHERE message BETWEEN $1 AND $2 AND reply <> '';

-- name: sealable_events
-- The events of the messages $1 to $2 that hold an upstream's or a provider's words; `worded`: their reason is some.
SELECT recorded_at, id, message, reason, description, raw, type = 'failed' AS worded FROM event
WHERE message BETWEEN $1 AND $2
    AND (type = 'failed' AND reason IS NOT NULL OR description IS NOT NULL OR raw IS NOT NULL);

-- name: exchange_events
-- Give events other words ($7 to $9) where these ($4 to $6) still stand.
UPDATE event e SET reason = t.reason, description = t.description, raw = t.raw
FROM unnest(
    $1::timestamptz[], $2::bigint[], $3::bigint[], $4::text[], $5::text[], $6::bytea[], $7::text[], $8::text[], $9::bytea[]
) AS t (recorded_at, id, message, old_reason, old_description, old_raw, reason, description, raw)
WHERE e.message = t.message AND e.recorded_at = t.recorded_at AND e.id = t.id
    AND (e.reason, e.description, e.raw) IS NOT DISTINCT FROM (t.old_reason, t.old_description, t.old_raw)
RETURNING e.id;

-- name: sealable_suppressions
-- The next $3 suppressions behind the place ($1, $2) that were entered by hand.
SELECT source, recipient_index, recipient FROM suppression
WHERE (source, recipient_index) > ($1, $2::bytea) AND recipient IS NOT NULL
ORDER BY source, recipient_index LIMIT $3;

-- name: exchange_suppressions
-- Give suppressions ($1, $2) the recipients $4 for $3, where these still stand.
UPDATE suppression s SET recipient = t.recipient
FROM unnest($1::text[], $2::bytea[], $3::bytea[], $4::bytea[]) AS t (source, recipient_index, old, recipient)
WHERE s.source = t.source AND s.recipient_index = t.recipient_index AND s.recipient = t.old RETURNING s.source;

-- name: sealable_parked
-- The next $2 parked events behind $1.
SELECT id, payload FROM parked_event WHERE id > $1 ORDER BY id LIMIT $2;

-- name: exchange_parked
-- Give parked events $1 the payloads $3 for $2, where these still stand.
UPDATE parked_event p SET payload = t.after FROM unnest($1::bigint[], $2::bytea[], $3::bytea[]) AS t (id, before, after)
WHERE p.id = t.id AND p.payload = t.before RETURNING p.id;

-- name: sealable_bodies
-- The next $3 bodies behind the place ($1, or the first; $2), by the first $4 octets of what they hold.
SELECT day, id, substr(envelope, 1, $4::integer) AS envelope, substr(content, 1, $4::integer) AS content FROM body
WHERE $1::date IS NULL OR (day, id) > ($1, $2::bigint) ORDER BY day, id LIMIT $3;

-- name: exchange_body
-- Give the body ($1, $2) another form of what it holds: a body never says anything else.
UPDATE body SET envelope = $3, content = $4 WHERE day = $1 AND id = $2 RETURNING id;

-- name: older_processes
-- How many processes live that started before addresses were first sealed with the key $1; all, where it never did.
SELECT count(*) AS processes FROM process
WHERE lease_until > now() AND started_at < coalesce(
    (SELECT first_seen FROM keyring WHERE purpose = 'addresses' AND fingerprint = $1), 'infinity'
);

-- name: retire_address_keys
-- Forget every key of addresses but those with the fingerprints $1.
DELETE FROM keyring WHERE purpose = 'addresses' AND fingerprint <> ALL($1::text[]) RETURNING fingerprint;

-- name: lock_retention
-- Let one process at a time do away with what is old; false when another does.
SELECT pg_try_advisory_xact_lock(1869968501) AS ours;

-- name: retention_reached
-- Up to which message retention of this kind has come.
SELECT message FROM retention WHERE kind = $1;

-- name: reach_retention
-- Note up to which message retention of kind $1 has come.
INSERT INTO retention (kind, message) VALUES ($1, $2)
ON CONFLICT (kind) DO UPDATE SET message = excluded.message;

-- name: next_messages
-- The next $2 messages behind $1, and what decides whether their recipients may go.
SELECT
    m.id, m.accepted_at, m.recipient = 'erased' AS erased,
    d.status IN ('sent', 'failed', 'refused', 'suppressed') AS settled
FROM message m JOIN delivery d ON d.message = m.id
WHERE m.id > $1 ORDER BY m.id LIMIT $2;

-- name: drop_old_parked
-- Let go of parked events from before $1, of the $2 oldest.
DELETE FROM parked_event WHERE id IN (
    SELECT id FROM (SELECT id, parked_at FROM parked_event ORDER BY id LIMIT $2) oldest WHERE parked_at < $1
) RETURNING id;

-- name: old_months
-- The months of events, as partitions, that ended by the day $1.
SELECT relname AS month, to_date(substr(relname, 7), 'YYYYMM') AS first,
    (to_date(substr(relname, 7), 'YYYYMM') + interval '1 month')::date AS next
FROM pg_inherits JOIN pg_class ON pg_class.oid = inhrelid
WHERE inhparent = 'event'::regclass AND relname ~ '^event_[0-9]{6}$'
    AND to_date(substr(relname, 7), 'YYYYMM') + interval '1 month' <= $1::date
ORDER BY relname;

-- name: month_span
-- The first and the last message that the events recorded from $1 to before $2 tell of.
SELECT min(message) AS first, max(message) AS last FROM event WHERE recorded_at >= $1::date AND recorded_at < $2::date;

-- name: tally_month
-- Keep what the events recorded from $1 to before $2 said of the messages from $3 to before $4.
INSERT INTO event_tally (message, type, source, machine, amount, first_at, last_at)
SELECT message, type, source, machine, count(*), min(occurred_at), max(occurred_at)
FROM event WHERE recorded_at >= $1::date AND recorded_at < $2::date AND message >= $3 AND message < $4
GROUP BY message, type, source, machine
ON CONFLICT (message, type, source, machine) DO UPDATE SET
    amount = event_tally.amount + excluded.amount, first_at = least(event_tally.first_at, excluded.first_at),
    last_at = greatest(event_tally.last_at, excluded.last_at);

-- name: drop_month
-- Drop a month of events; false when somebody stood in the way.
SELECT drop_events($1) AS done;

-- name: drop_stray_events
-- Let go of up to $2 events from before the day $1 that stand in no month of their own, and keep what they said.
WITH gone AS (
    DELETE FROM event_default
    WHERE (recorded_at, id) IN (
        SELECT recorded_at, id FROM event_default WHERE recorded_at < $1::date ORDER BY recorded_at, id LIMIT $2
    )
    RETURNING message, type, source, machine, occurred_at
), kept AS (
    INSERT INTO event_tally (message, type, source, machine, amount, first_at, last_at)
    SELECT message, type, source, machine, count(*), min(occurred_at), max(occurred_at)
    FROM gone GROUP BY message, type, source, machine
    ON CONFLICT (message, type, source, machine) DO UPDATE SET
        amount = event_tally.amount + excluded.amount, first_at = least(event_tally.first_at, excluded.first_at),
        last_at = greatest(event_tally.last_at, excluded.last_at)
)
SELECT count(*)::bigint AS gone FROM gone;
