-- Which numbers of the trackers' hits were recorded: each tracker numbers what it keeps, so that one that is missing
-- shows.

-- As recorded, appended once the hits themselves are; folded into the writer's row after a while.
CREATE TABLE hit_span (
    -- One start of one tracker.
    writer      bytea NOT NULL,
    first       bigint NOT NULL,
    last        bigint NOT NULL,
    -- Up to here all of the writer's numbers were in the stream before these hits, but for so many that were kept
    -- nowhere.
    settled     bigint NOT NULL,
    lost        bigint NOT NULL,
    recorded_at timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE hit_writer (
    writer   bytea PRIMARY KEY,
    seen     int8multirange NOT NULL,
    settled  bigint NOT NULL,
    lost     bigint NOT NULL,
    heard_at timestamptz NOT NULL
);
