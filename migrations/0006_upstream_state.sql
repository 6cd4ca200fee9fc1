-- How each relay process finds its upstreams, for whoever asks another process how things stand.

CREATE TABLE upstream_state (
    process    bigint NOT NULL REFERENCES process ON DELETE CASCADE,
    -- host:port, without credentials.
    upstream   text NOT NULL,
    -- Since when no mail is offered to it; null while it is.
    left_since timestamptz,
    -- A word of ours and the code that it answered, if it did.
    reason     text,
    PRIMARY KEY (process, upstream)
);
