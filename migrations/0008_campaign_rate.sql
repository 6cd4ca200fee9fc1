-- How fast a campaign's mail may leave, as an operator says it.

ALTER TABLE campaign
    -- So many messages in a time (100/m), or none for no limit; null: the setting's.
    ADD COLUMN rate text,
    -- Raised when what waits is let go at once: the turns that it was given before are void.
    ADD COLUMN rate_epoch integer NOT NULL DEFAULT 0;
