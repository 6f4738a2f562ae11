-- Described in docs/formats/journal.md. Times are microseconds since 1970-01-01 UTC; intent and evidence are JSON.
CREATE TABLE steps (
    id       INTEGER PRIMARY KEY AUTOINCREMENT,
    run      TEXT    NOT NULL,
    node     TEXT    NOT NULL,
    op       TEXT    NOT NULL,
    attempt  INTEGER NOT NULL,
    began    INTEGER NOT NULL,
    deadline INTEGER,
    intent   TEXT,
    ended    INTEGER,
    status   TEXT    NOT NULL DEFAULT 'doing' CHECK (status IN ('doing', 'done', 'failed', 'skipped', 'interrupted')),
    evidence TEXT,
    error    TEXT    NOT NULL DEFAULT '',
    CHECK ((status = 'doing') = (ended IS NULL))
) STRICT;
CREATE INDEX steps_by_node ON steps (node, op, id);
CREATE INDEX steps_by_run ON steps (run, node, op);
CREATE INDEX steps_open ON steps (status) WHERE status = 'doing';

CREATE TABLE observations (
    id       INTEGER PRIMARY KEY AUTOINCREMENT,
    run      TEXT    NOT NULL,
    node     TEXT    NOT NULL,
    stage    TEXT    NOT NULL,
    at       INTEGER NOT NULL,
    evidence TEXT
) STRICT;
CREATE INDEX observations_by_node ON observations (node, id);

CREATE TABLE audit (
    id      INTEGER PRIMARY KEY AUTOINCREMENT,
    who     TEXT    NOT NULL,
    pid     INTEGER NOT NULL,
    verb    TEXT    NOT NULL,
    command TEXT    NOT NULL,
    at      INTEGER NOT NULL,
    ended   INTEGER,
    exit    INTEGER,
    CHECK ((exit IS NULL) = (ended IS NULL))
) STRICT;

CREATE TRIGGER steps_end_once BEFORE UPDATE ON steps
WHEN OLD.status <> 'doing' OR NEW.status = 'doing'
BEGIN SELECT RAISE(ABORT, 'journal: a step that ended is not changed'); END;

CREATE TRIGGER steps_keep_intent BEFORE UPDATE OF id, run, node, op, attempt, began, deadline, intent ON steps
BEGIN SELECT RAISE(ABORT, 'journal: what a step set out to do is not changed'); END;

CREATE TRIGGER audit_end_once BEFORE UPDATE ON audit
WHEN OLD.ended IS NOT NULL OR NEW.ended IS NULL
BEGIN SELECT RAISE(ABORT, 'journal: an audit entry that ended is not changed'); END;

CREATE TRIGGER audit_keep BEFORE UPDATE OF id, who, pid, verb, command, at ON audit
BEGIN SELECT RAISE(ABORT, 'journal: an audit entry is not changed'); END;

CREATE TRIGGER observations_keep BEFORE UPDATE ON observations
BEGIN SELECT RAISE(ABORT, 'journal: an observation is not changed'); END;

CREATE TRIGGER steps_no_delete BEFORE DELETE ON steps
BEGIN SELECT RAISE(ABORT, 'journal: nothing is deleted'); END;
CREATE TRIGGER observations_no_delete BEFORE DELETE ON observations
BEGIN SELECT RAISE(ABORT, 'journal: nothing is deleted'); END;
CREATE TRIGGER audit_no_delete BEFORE DELETE ON audit
BEGIN SELECT RAISE(ABORT, 'journal: nothing is deleted'); END;
