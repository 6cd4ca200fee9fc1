-- Retention: how far it has come, what events said that are gone, and how a month of them goes.

-- Every message up to `message` has been dealt with, for good.
CREATE TABLE retention (
    kind    text PRIMARY KEY,
    message bigint NOT NULL
);

-- What is left of events that are gone: enough to add a later event of the same message to them, and nobody in it.
CREATE TABLE event_tally (
    message  bigint NOT NULL,
    type     text NOT NULL,
    source   text NOT NULL,
    machine  boolean NOT NULL,
    amount   bigint NOT NULL,
    first_at timestamptz NOT NULL,
    last_at  timestamptz NOT NULL,
    PRIMARY KEY (message, type, source, machine)
);

-- False when somebody stood in the way for a second: whoever comes after us would wait behind us.
CREATE FUNCTION drop_events(month text) RETURNS boolean LANGUAGE plpgsql SET lock_timeout = '1s' AS $$
BEGIN
    IF month !~ '^event_[0-9]{6}$' THEN
        RAISE EXCEPTION 'not a month of events: %', month;
    END IF;
    EXECUTE format('DROP TABLE %I', month);
    RETURN true;
EXCEPTION WHEN lock_not_available THEN
    RETURN false;
END
$$;
