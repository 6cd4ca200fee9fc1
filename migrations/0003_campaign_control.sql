-- What an operator says of a campaign beside a pause: when its mail may be sent; and when its counts were last folded
-- and last derived anew, so that only what changed is counted again.

ALTER TABLE campaign
    -- Its own send window; null: the setting's.
    ADD COLUMN send_window text,
    -- Outside its window now. Kept apart from the pause, which only an operator lifts.
    ADD COLUMN closed boolean NOT NULL DEFAULT false,
    ADD COLUMN folded_at timestamptz,
    ADD COLUMN counted_at timestamptz;
CREATE INDEX campaign_folded_idx ON campaign (folded_at) WHERE folded_at IS NOT NULL;
