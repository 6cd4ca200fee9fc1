-- Under which keys addresses are sealed: a process that lacks one of them does not start.

ALTER TABLE keyring
    DROP CONSTRAINT keyring_purpose_check,
    ADD CONSTRAINT keyring_purpose_check CHECK (purpose IN ('identity', 'signing', 'addresses'));
