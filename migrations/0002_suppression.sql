-- Suppression in an operator's hands: who was entered by hand has no message to be found by, a lifted entry stays as
-- the record that it was lifted, and a recipient may be asked for across all sources.

ALTER TABLE suppression
    -- As it was entered; null when a message of ours says who it is.
    ADD COLUMN recipient bytea,
    -- The recipient wants mail again. A later wish counts anew, an older one that arrives late does not.
    ADD COLUMN lifted_at timestamptz;
CREATE INDEX suppression_recipient_idx ON suppression (recipient_index);
