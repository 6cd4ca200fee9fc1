-- What AMS itself shows of its mailings, to be held against what it was told.

CREATE TABLE ams_shown (
    mailing bigint PRIMARY KEY,
    -- As AMS counts them: once per address.
    opened  bigint NOT NULL,
    clicks  bigint NOT NULL,
    seen_at timestamptz NOT NULL DEFAULT now()
);
