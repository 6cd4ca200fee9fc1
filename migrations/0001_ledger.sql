-- The ledger's shape, as measured: index and WAL growth is the first bottleneck, so a message costs two random
-- index entries (its key, its alias) and everything else hangs on a sequential id. No foreign keys on the hot
-- tables: rows are written by one statement that cannot leave half of itself behind.

CREATE TYPE delivery_status AS ENUM ('accepted', 'queued', 'sending', 'sent', 'failed', 'refused', 'suppressed');

-- Which keys this ledger was written with. A process that holds an unknown identity key refuses to start.
CREATE TABLE keyring (
    purpose     text NOT NULL CHECK (purpose IN ('identity', 'signing')),
    fingerprint text NOT NULL,
    first_seen  timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (purpose, fingerprint)
);

-- A running process and its lease. What it held is taken over once the lease has run out.
CREATE TABLE process (
    id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    role        text NOT NULL,
    started_at  timestamptz NOT NULL DEFAULT now(),
    lease_until timestamptz NOT NULL
);

-- A lease with a name, for work that only one process may do at a time.
CREATE TABLE lease (
    name        text PRIMARY KEY,
    owner       bigint NOT NULL,
    lease_until timestamptz NOT NULL
);

CREATE TABLE campaign (
    id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    source      text NOT NULL,
    campaign_id text NOT NULL,
    -- The integer under which AMS knows it; null for everybody else's campaigns.
    ams_mailing bigint,
    to_send     integer,
    -- The operator's hold.
    paused_at   timestamptz,
    created_at  timestamptz NOT NULL DEFAULT now(),
    UNIQUE (source, campaign_id)
);

-- Counters are appended and folded later: one hot row per campaign made commits a hundred times slower.
CREATE TABLE campaign_delta (
    campaign bigint NOT NULL,
    counter  text NOT NULL,
    amount   bigint NOT NULL
);

CREATE TABLE campaign_count (
    campaign bigint NOT NULL,
    counter  text NOT NULL,
    value    bigint NOT NULL,
    PRIMARY KEY (campaign, counter)
);

-- A transaction with several recipients; with one, the message's key is the submission's.
CREATE TABLE submission (
    id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    key         bytea NOT NULL UNIQUE,
    accepted_at timestamptz NOT NULL
);

-- One recipient's message. Inserted once, never updated.
CREATE TABLE message (
    key                 bytea PRIMARY KEY,
    id                  bigint GENERATED ALWAYS AS IDENTITY,
    accepted_at         timestamptz NOT NULL,
    campaign            bigint,
    submission          bigint,
    generation          integer NOT NULL,
    size                integer NOT NULL,
    links               integer NOT NULL,
    injected            boolean NOT NULL,
    -- Why nothing, or less than asked for, was injected; null when all was.
    reason              text,
    source              text NOT NULL,
    -- Why there is no campaign; null when there is one.
    campaign_reason     text,
    -- Addresses are bytes, so that encrypting them is a setting and not a migration.
    sender              bytea NOT NULL,
    recipient           bytea NOT NULL,
    recipient_index     bytea NOT NULL,
    -- The Message-ID that left, without angle brackets.
    message_id          text NOT NULL,
    original_message_id text,
    -- What a repeat must equal.
    body_digest         bytea NOT NULL
);
CREATE UNIQUE INDEX message_id_idx ON message (id);
CREATE INDEX message_campaign_idx ON message (campaign, id);
CREATE INDEX message_submission_idx ON message (submission) WHERE submission IS NOT NULL;
-- Led by the campaign, so that its growing edge stays in memory.
CREATE INDEX message_recipient_idx ON message (campaign, recipient_index);

-- Where a message stands. Narrow, because it is updated.
CREATE TABLE delivery (
    message    bigint PRIMARY KEY,
    status     delivery_status NOT NULL,
    attempts   smallint NOT NULL DEFAULT 0,
    -- Raised whenever the message changes hands: a late word of an earlier turn changes nothing.
    turn       integer NOT NULL DEFAULT 1,
    -- How often it was tried again although the upstream may have had it: an intent mark without an answer.
    doubts     smallint NOT NULL DEFAULT 0,
    -- The process that works on it now.
    worker     bigint,
    next_at    timestamptz,
    -- The intent mark: committed before the final dot leaves.
    dot_at     timestamptz,
    settled_at timestamptz,
    body_day   date,
    body       bigint,
    upstream   text,
    reply      text
) WITH (fillfactor = 80);
CREATE INDEX delivery_due_idx ON delivery (next_at) WHERE status = 'queued';
-- What waits is counted, and its oldest found, without a look at all that was ever sent.
CREATE INDEX delivery_waiting_idx ON delivery (message) WHERE status IN ('queued', 'sending');
CREATE INDEX delivery_worker_idx ON delivery (worker) WHERE worker IS NOT NULL;
CREATE INDEX delivery_body_idx ON delivery (body) WHERE body IS NOT NULL;

-- What must be kept to send a message later: once per submission, partitioned by day, freed when done.
CREATE TABLE body (
    id        bigint GENERATED BY DEFAULT AS IDENTITY,
    day       date NOT NULL,
    -- The submission as it came, without its content, in MessagePack.
    envelope  bytea NOT NULL,
    -- What rendering depended on, so that a retry sends the same bytes.
    profile   bytea NOT NULL,
    content   bytea NOT NULL,
    stored_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (day, id)
) PARTITION BY RANGE (day);
ALTER TABLE body ALTER COLUMN content SET STORAGE EXTERNAL;
CREATE TABLE body_default PARTITION OF body DEFAULT;

-- How far the sweep that frees bodies has come. One row, so that a turn looks at no more than its bite.
CREATE TABLE body_sweep (
    day date NOT NULL,
    id  bigint NOT NULL
);
INSERT INTO body_sweep VALUES ('-infinity', 0);

-- The settings and key under which messages were rendered, by digest.
CREATE TABLE render_profile (
    digest     bytea PRIMARY KEY,
    profile    jsonb NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now()
);

-- A foreign id that names one of our messages, or several.
CREATE TABLE alias (
    digest  bytea NOT NULL,
    message bigint NOT NULL,
    at      timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (digest, message)
);

-- A pure function of the message's events; created by the first of them.
CREATE TABLE engagement (
    message          bigint PRIMARY KEY,
    opens            integer NOT NULL DEFAULT 0,
    clicks           integer NOT NULL DEFAULT 0,
    machine_opens    integer NOT NULL DEFAULT 0,
    machine_clicks   integer NOT NULL DEFAULT 0,
    delivered_at     timestamptz,
    first_opened_at  timestamptz,
    last_opened_at   timestamptz,
    first_clicked_at timestamptz,
    bounced_at       timestamptz,
    complained_at    timestamptz,
    unsubscribed_at  timestamptz
) WITH (fillfactor = 80);

CREATE TABLE event (
    id          bigint GENERATED BY DEFAULT AS IDENTITY,
    message     bigint NOT NULL,
    occurred_at timestamptz NOT NULL,
    recorded_at timestamptz NOT NULL DEFAULT now(),
    type        text NOT NULL,
    -- Who said so: tracker, relay, or a provider's name.
    source      text NOT NULL,
    link        integer,
    machine     boolean NOT NULL DEFAULT false,
    -- person, probable or machine, with the evidence.
    verdict     text,
    reason      text,
    url         text,
    network     text,
    user_agent  text,
    dedupe      bytea NOT NULL,
    PRIMARY KEY (recorded_at, id)
) PARTITION BY RANGE (recorded_at);
CREATE INDEX event_message_idx ON event (message);
CREATE TABLE event_default PARTITION OF event DEFAULT;

-- Which events were recorded, for as long as a copy may still arrive (60 days).
CREATE TABLE event_seen (
    dedupe bytea PRIMARY KEY,
    at     timestamptz NOT NULL DEFAULT now()
);

-- Only ever asked for the oldest, and written in order.
CREATE INDEX event_seen_at_idx ON event_seen USING brin (at);

-- What matched nothing yet, with its reason; tried again when a correlation appears.
CREATE TABLE parked_event (
    id        bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    dedupe    bytea NOT NULL UNIQUE,
    parked_at timestamptz NOT NULL DEFAULT now(),
    source    text NOT NULL,
    reason    text NOT NULL,
    -- The id that it named: a message key, or an alias digest.
    named     bytea NOT NULL,
    payload   bytea NOT NULL
);
CREATE INDEX parked_event_named_idx ON parked_event (named);

-- Whom campaign mail no longer reaches.
CREATE TABLE suppression (
    source          text NOT NULL,
    recipient_index bytea NOT NULL,
    reason          text NOT NULL,
    message         bigint,
    at              timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (source, recipient_index)
);

-- What AMS has yet to hear. A row leaves only on a valid result, or is parked with the answer that refused it.
CREATE TABLE outbox (
    id         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    mailing    bigint NOT NULL,
    campaign   bigint NOT NULL,
    message    bigint NOT NULL,
    url        text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    parked_at  timestamptz,
    reason     text
);
CREATE INDEX outbox_pending_idx ON outbox (mailing, id) WHERE parked_at IS NULL;
CREATE INDEX outbox_campaign_idx ON outbox (campaign);

-- How delivery of one AMS mailing goes: its backoff, its last error, and why it is held when it is.
CREATE TABLE ams_mailing (
    mailing    bigint PRIMARY KEY,
    failures   integer NOT NULL DEFAULT 0,
    next_at    timestamptz NOT NULL DEFAULT now(),
    last_error text,
    held       text
);

-- Partitions are made ahead by every process that writes; rows that come all the same go to the default ones.
-- True when nothing is left to do. It never waits long for a reader, a dump for instance: whatever comes after it would
-- wait behind it. Attached, not created in place, because that lets inserts into the other partitions go on.
CREATE FUNCTION make_partitions(today date) RETURNS boolean LANGUAGE plpgsql SET lock_timeout = '1s' AS $$
DECLARE
    missing record;
    spent text;
    used boolean;
BEGIN
    IF NOT pg_try_advisory_xact_lock(1869968498) THEN
        RETURN false;
    END IF;
    FOR missing IN
        SELECT parent, parent || '_' || to_char(first, pattern) AS name, first, (first + length)::date AS next
        FROM (
            SELECT 'body' AS parent, 'YYYYMMDD' AS pattern, today + day AS first, interval '1 day' AS length
            FROM generate_series(0, 7) AS day
            UNION ALL
            SELECT 'event', 'YYYYMM', (date_trunc('month', today) + make_interval(months => month))::date, '1 month'
            FROM generate_series(0, 3) AS month
        ) needed
        WHERE to_regclass(parent || '_' || to_char(first, pattern)) IS NULL
        ORDER BY first, parent
    LOOP
        BEGIN
            EXECUTE format(
                'CREATE TABLE %I (LIKE %I INCLUDING DEFAULTS INCLUDING CONSTRAINTS INCLUDING STORAGE INCLUDING INDEXES)',
                missing.name, missing.parent);
            EXECUTE format('ALTER TABLE %I ATTACH PARTITION %I FOR VALUES FROM (%L) TO (%L)',
                missing.parent, missing.name, missing.first, missing.next);
        EXCEPTION
            WHEN lock_not_available THEN
                RETURN false;
            WHEN check_violation THEN
                -- Its rows came before it and stay in the default one.
                NULL;
        END;
    END LOOP;
    -- Days whose bodies are all freed.
    FOR spent IN
        SELECT relname FROM pg_inherits JOIN pg_class ON pg_class.oid = inhrelid
        WHERE inhparent = 'body'::regclass AND relname ~ '^body_[0-9]{8}$'
            AND relname < 'body_' || to_char(today - 1, 'YYYYMMDD')
        ORDER BY relname
    LOOP
        BEGIN
            EXECUTE format('SELECT EXISTS (SELECT FROM %I)', spent) INTO used;
            IF NOT used THEN
                EXECUTE format('DROP TABLE %I', spent);
            END IF;
        EXCEPTION WHEN lock_not_available THEN
            RETURN false;
        END;
    END LOOP;
    RETURN true;
END
$$;
