-- Every statement of the ledger. Each has a name, a purpose in one line, and exactly one statement.
-- Sections follow the flow; a file beside this one gives each section its types.

-- == keys, processes and leases (ledger/processes.py) ==

-- name: register_process
-- Enter a process with a lease of $2 seconds; its id owns what it works on.
INSERT INTO process (role, lease_until)
VALUES ($1, now() + make_interval(secs => $2))
RETURNING id;

-- name: renew_process
-- Extend a process's lease to $2 seconds from now; no row when it was already taken over.
UPDATE process SET lease_until = now() + make_interval(secs => $2)
WHERE id = $1 AND lease_until > now()
RETURNING id;

-- name: leave_process
-- End a process's lease at once, so that nobody waits for it to run out.
UPDATE process SET lease_until = now() WHERE id = $1;

-- name: take_lease
-- Take or renew the named lease for owner $2 for $3 seconds; no row while somebody else holds it.
INSERT INTO lease (name, owner, lease_until)
VALUES ($1, $2, now() + make_interval(secs => $3))
ON CONFLICT (name) DO UPDATE SET owner = excluded.owner, lease_until = excluded.lease_until
WHERE lease.owner = excluded.owner OR lease.lease_until < now()
RETURNING owner;

-- name: give_lease
-- Give the named lease back.
DELETE FROM lease WHERE name = $1 AND owner = $2;

-- name: lock_keyring
-- Let one process at a time compare its keys, so that two first starts cannot both be first.
SELECT pg_advisory_xact_lock(1869968499);

-- name: keyring_fingerprints
-- The fingerprints of the keys that this ledger was written with, for one purpose.
SELECT fingerprint FROM keyring WHERE purpose = $1;

-- name: remember_fingerprint
-- Remember a key's fingerprint.
INSERT INTO keyring (purpose, fingerprint) VALUES ($1, $2) ON CONFLICT DO NOTHING;

-- name: make_partitions
-- Make the partitions of bodies (days) and events (months) that the next days need; twice is once.
SELECT make_partitions($1::date);

-- == mail in (ledger/mail.py) ==

-- == hits into the ledger (ledger/engagements.py) ==

-- == events out to AMS (ledger/outbox.py) ==

-- == what an operator asks (ledger/reports.py) ==
