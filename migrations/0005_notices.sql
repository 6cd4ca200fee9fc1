-- What providers tell: more about an event than a hit has, and every id by which an event that matched nothing may be
-- found later.

ALTER TABLE event
    -- By which id its message was found.
    ADD COLUMN step text,
    -- hard, soft, block, suppressed or unknown.
    ADD COLUMN bounce text,
    ADD COLUMN smtp_code text,
    ADD COLUMN enhanced_code text,
    -- Why, in the provider's words.
    ADD COLUMN description text,
    -- The event as it came.
    ADD COLUMN raw bytea;

-- A parked event is tried again when its names lead to more messages than they did.
ALTER TABLE parked_event
    ADD COLUMN found bigint NOT NULL DEFAULT 0,
    -- Whom it names, to be erased with them; null where it names nobody.
    ADD COLUMN recipient_index bytea;
CREATE INDEX parked_event_source_idx ON parked_event (source, id);

-- The ids that a parked event names: message keys, submission keys, alias digests.
CREATE TABLE parked_name (
    parked bigint NOT NULL REFERENCES parked_event ON DELETE CASCADE,
    named  bytea NOT NULL,
    PRIMARY KEY (parked, named)
);
CREATE INDEX parked_name_named_idx ON parked_name (named);
INSERT INTO parked_name (parked, named) SELECT id, named FROM parked_event WHERE named <> '';

-- To how many messages these ids lead now.
CREATE FUNCTION messages_named(names bytea[]) RETURNS bigint LANGUAGE sql STABLE AS $$
    SELECT
        (SELECT count(*) FROM message WHERE key = ANY(names))
        + (SELECT count(*) FROM alias WHERE digest = ANY(names))
        -- Counted for each, or the plan might read all messages.
        + (SELECT coalesce(sum((SELECT count(*) FROM message WHERE message.submission = submission.id)), 0)::bigint
           FROM submission WHERE key = ANY(names))
$$;
