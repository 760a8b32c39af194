-- Indexes last, as a copy by VACUUM orders them too: then the pages on which everything starts are the same in every store, and
-- a damaged first page can be replaced by that of a new one.

-- The one secondary index of the hot path: rises with the sequence for new records, is touched again only by a wait.
CREATE INDEX IF NOT EXISTS records_due ON records (lane, due, sequence);

-- Finds the newest outcome of a record; nearly rising.
CREATE INDEX IF NOT EXISTS outcomes_sequence ON outcomes (sequence);

-- Format 1.1. Finds the head of a key, its oldest follower, and whether a lane has any.
CREATE INDEX IF NOT EXISTS gates_key ON gates (lane, order_key, head, sequence);

-- Format 1.1. Finds what has passed its deadline.
CREATE INDEX IF NOT EXISTS deadlines_time ON deadlines (lane, time, sequence);
