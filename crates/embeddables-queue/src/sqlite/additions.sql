-- Tables that minors after 1.0 added. An older release of the same major ignores them; they are made where they are missing.

-- Format 1.1. Order keys that hold records back: the head (head = 1) and its followers (head = 0), which are waiting records.
-- Hints: a row that is lost or names a record that is gone costs time, since every follower has a due time, never a record.
CREATE TABLE IF NOT EXISTS gates (
    sequence  INTEGER PRIMARY KEY,
    lane      INTEGER NOT NULL,
    order_key BLOB NOT NULL,
    head      INTEGER NOT NULL
);

-- Format 1.1. Keys that were opened and whose followers are let go step by step: those after `reached`, up to `up_to`.
CREATE TABLE IF NOT EXISTS openings (
    number    INTEGER PRIMARY KEY,
    lane      INTEGER NOT NULL,
    order_key BLOB NOT NULL,
    reached   INTEGER NOT NULL,
    up_to     INTEGER NOT NULL
);

-- Format 1.1. Wall times at which records are handed out to be given up.
CREATE TABLE IF NOT EXISTS deadlines (
    sequence INTEGER PRIMARY KEY,
    lane     INTEGER NOT NULL,
    time     INTEGER NOT NULL,
    crc      INTEGER NOT NULL
);

-- Format 1.1. One row a lane: how long it has not aged in all (running time, as is `stopped_since`; -1 while it ages), its dead
-- letters and their bytes as of the row's commit, and the caller's note. The number of dead letters tells whether an older
-- release has been at work since.
CREATE TABLE IF NOT EXISTS lane_states (
    lane              INTEGER PRIMARY KEY,
    stopped_total     INTEGER NOT NULL,
    stopped_since     INTEGER NOT NULL,
    dead_letters      INTEGER NOT NULL,
    dead_letter_bytes INTEGER NOT NULL,
    crc               INTEGER NOT NULL,
    note              BLOB NOT NULL
);
