-- Sinks: who hears of events beside AMS. What one has yet to hear is kept as names of events, so that a person stands in
-- no further place; what is told is read from the event and its message at the last moment.

ALTER TABLE message
    -- The recipient's UUID in listmonk, sealed like an address; null for everybody else's mail.
    ADD COLUMN subscriber bytea;

-- The sinks that are configured, and how delivery to each goes: its backoff, its last error, and why it is held.
CREATE TABLE sink (
    name       text PRIMARY KEY,
    failures   integer NOT NULL DEFAULT 0,
    next_at    timestamptz NOT NULL DEFAULT now(),
    last_error text,
    held       text
);

-- What a sink has yet to hear: the event is found by message, time and dedupe id. A row leaves only on a 2xx, or is
-- parked with the answer that refused it.
CREATE TABLE sink_item (
    id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    sink        text NOT NULL,
    message     bigint NOT NULL,
    event       bytea NOT NULL,
    recorded_at timestamptz NOT NULL,
    -- What of a message this sink is told only once; empty where it is told of every event.
    kind        text NOT NULL DEFAULT '',
    queued_at   timestamptz NOT NULL DEFAULT now(),
    -- The intent mark, for a sink that cannot tell a copy: committed before the request leaves.
    tried_at    timestamptz,
    parked_at   timestamptz,
    reason      text
);
CREATE INDEX sink_item_pending_idx ON sink_item (sink, id) WHERE parked_at IS NULL;
CREATE INDEX sink_item_message_idx ON sink_item (message);

-- What was told once and is not told again.
CREATE TABLE sink_once (
    sink    text NOT NULL,
    message bigint NOT NULL,
    kind    text NOT NULL,
    PRIMARY KEY (sink, message, kind)
);

-- Events that no courier recorded: a courier queues them for the sinks that want them. A trigger, so that every writer
-- is heard, those of an older version too; it does nothing while there is no sink.
CREATE TABLE sink_fresh (
    id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    message     bigint NOT NULL,
    event       bytea NOT NULL,
    recorded_at timestamptz NOT NULL
);

CREATE FUNCTION note_fresh_event() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF EXISTS (SELECT FROM sink) THEN
        INSERT INTO sink_fresh (message, event, recorded_at) VALUES (NEW.message, NEW.dedupe, NEW.recorded_at);
    END IF;
    RETURN NULL;
END
$$;
CREATE TRIGGER event_fresh AFTER INSERT ON event
    FOR EACH ROW WHEN (NEW.source IN ('relay', 'operator')) EXECUTE FUNCTION note_fresh_event();
