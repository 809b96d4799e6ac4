-- Values that identify a person, beside the entries that commit to them. Each is sealed under a key of
-- that person's own, which is itself wrapped under the master key, which is not here.
CREATE TABLE subject_keys (
    id           uuid   PRIMARY KEY,
    subject      bytea  NOT NULL CHECK (octet_length(subject) = 32),    -- keyed hash: tells nobody who
    wrapped      bytea,                                                 -- null once destroyed
    destroyed_at bigint,
    destroyed_by text,                                                  -- the API key that asked
    CHECK ((wrapped IS NULL) = (destroyed_at IS NOT NULL))
);
CREATE UNIQUE INDEX subject_keys_living ON subject_keys (subject) WHERE wrapped IS NOT NULL;

CREATE TABLE personal_values (
    seq     bigint PRIMARY KEY,
    key     uuid REFERENCES subject_keys,   -- null once erased
    sealed  bytea,                          -- null once erased
    erasure bigint,                         -- the record that says so
    CHECK ((sealed IS NULL) = (erasure IS NOT NULL) AND (key IS NULL) = (erasure IS NOT NULL))
);
-- What only the right master key makes: another one is refused.
CREATE TABLE master_key (
    one boolean PRIMARY KEY DEFAULT true CHECK (one),
    proof bytea NOT NULL
);
CREATE INDEX personal_values_key ON personal_values (key, seq) WHERE key IS NOT NULL;
