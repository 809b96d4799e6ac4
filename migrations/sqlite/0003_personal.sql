-- Values that identify a person, beside the entries that commit to them. Each is sealed under a key of
-- that person's own, which is itself wrapped under the master key, which is not here.
CREATE TABLE subject_keys (
    id           BLOB NOT NULL PRIMARY KEY,
    subject      BLOB NOT NULL CHECK (length(subject) = 32),    -- keyed hash: tells nobody who
    wrapped      BLOB,                                          -- null once destroyed
    destroyed_at INTEGER,
    destroyed_by TEXT,                                          -- the API key that asked
    CHECK ((wrapped IS NULL) = (destroyed_at IS NOT NULL))
);
CREATE UNIQUE INDEX subject_keys_living ON subject_keys (subject) WHERE wrapped IS NOT NULL;

CREATE TABLE personal_values (
    seq     INTEGER PRIMARY KEY,
    key     BLOB REFERENCES subject_keys,   -- null once erased
    sealed  BLOB,                           -- null once erased
    erasure INTEGER,                        -- the record that says so
    CHECK ((sealed IS NULL) = (erasure IS NOT NULL) AND (key IS NULL) = (erasure IS NOT NULL))
);
-- What only the right master key makes: another one is refused.
CREATE TABLE master_key (
    one   INTEGER PRIMARY KEY DEFAULT 1 CHECK (one = 1),
    proof BLOB NOT NULL
);
CREATE INDEX personal_values_key ON personal_values (key, seq) WHERE key IS NOT NULL;
