-- History from elsewhere: how far each import has come, so that one that was interrupted goes on.

CREATE TABLE import_progress (
    campaign bigint NOT NULL,
    -- emailoctopus, csv or listmonk.
    origin   text NOT NULL,
    report   text NOT NULL,
    -- Where to go on, in the origin's own words; empty: from the beginning; null: it was read to its end.
    place    text,
    at       timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (campaign, origin, report)
);
