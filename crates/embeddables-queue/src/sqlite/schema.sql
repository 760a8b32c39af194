-- Tables of format 1.0 of `queue.db`; `additions.sql` has those of later minors, `indexes.sql` the indexes. Times are
-- milliseconds: `*_time` of the wall clock since 1970, `*_running` of the store's own running time (how long it has been open,
-- over all restarts). `crc` is a CRC32C over the other columns of the row as `codec.rs` lays them out; a row whose crc is wrong
-- is moved to `quarantine`. Stored without comments and with single spaces: all of it has to fit into the first page.

-- Facts about the store, each with its own checksum. `format` repeats PRAGMA user_version, so that a flipped bit in either is
-- known for what it is; `secret` is kept twice (`secret_copy`).
CREATE TABLE meta (
    name  TEXT PRIMARY KEY NOT NULL,
    value BLOB NOT NULL,
    crc   INTEGER NOT NULL
) WITHOUT ROWID;

-- One row, changed by every commit: the commit's number and the numbers to give out next.
-- Records below `doubt_sequence` that were not settled under `doubt_claim` or a later claim may have been tried: the leases of
-- an earlier life could not be read, or this store is a copy of one that may still run. 0 = no doubt.
CREATE TABLE store (
    only             INTEGER PRIMARY KEY CHECK (only = 1),
    commit_number    INTEGER NOT NULL,
    next_sequence    INTEGER NOT NULL,
    next_claim       INTEGER NOT NULL,
    next_outcome     INTEGER NOT NULL,
    running          INTEGER NOT NULL,
    evicted_ids      INTEGER NOT NULL,
    possible_losses  INTEGER NOT NULL,
    doubt_sequence   INTEGER NOT NULL,
    doubt_claim      INTEGER NOT NULL,
    crc              INTEGER NOT NULL
);

-- Lanes by number, with their books. accepted = delivered + dead_lettered + discarded + erased + quarantined + ready + waiting.
-- `used_bytes` are those of its records and dead letters, with their overhead: what counts against `max_bytes`.
CREATE TABLE lanes (
    number        INTEGER PRIMARY KEY,
    name          TEXT NOT NULL UNIQUE,
    accepted      INTEGER NOT NULL,
    delivered     INTEGER NOT NULL,
    dead_lettered INTEGER NOT NULL,
    discarded     INTEGER NOT NULL,
    erased        INTEGER NOT NULL,
    quarantined   INTEGER NOT NULL,
    ready         INTEGER NOT NULL,
    waiting       INTEGER NOT NULL,
    used_bytes    INTEGER NOT NULL,
    crc           INTEGER NOT NULL
);

-- Dead letters ever made, by lane and reason.
CREATE TABLE reasons (
    lane   INTEGER NOT NULL,
    reason TEXT NOT NULL,
    total  INTEGER NOT NULL,
    PRIMARY KEY (lane, reason)
) WITHOUT ROWID;

-- Records that are still here. Payload last, so that a long one spills to overflow pages behind all that is needed to move it.
-- `due` is the wall time from which it is due (0 = never settled, due at once), `settled_claim` the claim under which it was
-- last settled (0 = never), `accept_running` what the lane's clock showed: running time without the spans in `lane_states`.
CREATE TABLE records (
    sequence       INTEGER PRIMARY KEY,
    lane           INTEGER NOT NULL,
    due            INTEGER NOT NULL,
    settled_claim  INTEGER NOT NULL,
    crc            INTEGER NOT NULL,
    accept_time    INTEGER NOT NULL,
    accept_running INTEGER NOT NULL,
    order_key      BLOB NOT NULL,
    id             TEXT NOT NULL,
    progress       BLOB NOT NULL,
    payload        BLOB NOT NULL
);

-- Ids from acceptance until eviction. Clustered by id: one descent for check and insert; rising ids fill the rightmost page.
CREATE TABLE ids (
    lane        INTEGER NOT NULL,
    id          TEXT NOT NULL,
    sequence    INTEGER NOT NULL,
    fingerprint BLOB NOT NULL,
    accept_time INTEGER NOT NULL,
    durability  INTEGER NOT NULL,
    PRIMARY KEY (lane, id)
) WITHOUT ROWID;

-- How records left, densely numbered in order of commit; evicted from the front.
CREATE TABLE outcomes (
    number       INTEGER PRIMARY KEY,
    sequence     INTEGER NOT NULL,
    lane         INTEGER NOT NULL,
    kind         INTEGER NOT NULL,
    crc          INTEGER NOT NULL,
    outcome_time INTEGER NOT NULL,
    running      INTEGER NOT NULL,
    id           TEXT NOT NULL,
    reason       TEXT NOT NULL,
    note         BLOB NOT NULL
);

-- Records that were given up and wait for an operator.
CREATE TABLE dead_letters (
    sequence       INTEGER PRIMARY KEY,
    lane           INTEGER NOT NULL,
    crc            INTEGER NOT NULL,
    accept_time    INTEGER NOT NULL,
    accept_running INTEGER NOT NULL,
    dead_time      INTEGER NOT NULL,
    order_key      BLOB NOT NULL,
    id             TEXT NOT NULL,
    reason         TEXT NOT NULL,
    progress       BLOB NOT NULL,
    payload        BLOB NOT NULL
);

-- Damaged rows as they were read, for a human. No types: whatever was found is kept.
CREATE TABLE quarantine (
    number     INTEGER PRIMARY KEY,
    from_table TEXT NOT NULL,
    sequence,
    lane,
    id,
    crc,
    columns
);

-- Lease marks: one row a claim whose leases are not all settled. `sequences` is the packed list.
CREATE TABLE claims (
    number    INTEGER PRIMARY KEY,
    lane      INTEGER NOT NULL,
    sequences BLOB NOT NULL,
    crc       INTEGER NOT NULL
);
