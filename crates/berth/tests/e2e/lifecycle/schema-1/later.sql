-- What was done to the tables since their first schema, step by step as it was released, each under the name of its room
-- and the version that it led to. Steps are added here together with the code and never changed. After a step stands what
-- a state of that version may hold.
--# build 2
ALTER TABLE build_record ADD COLUMN parts TEXT NOT NULL DEFAULT '';
--# build_history 2
DROP INDEX build_history_step_identity;
CREATE INDEX build_history_step_identity ON build_history_step (identity) WHERE parts IS NOT NULL;
--# engine 2
SELECT 1;
--# image 2
CREATE TABLE upload (
        blob TEXT NOT NULL,
        domain TEXT NOT NULL,
        path TEXT NOT NULL,
        location TEXT NOT NULL,
        PRIMARY KEY (blob, domain, path)
    ) STRICT, WITHOUT ROWID;
--# image 3
ALTER TABLE image ADD COLUMN parent TEXT;
CREATE INDEX image_parent ON image (parent);
--# image 4
CREATE TABLE layer_recipe (
        blob TEXT PRIMARY KEY,
        diff TEXT NOT NULL,
        size INTEGER NOT NULL,
        recipe TEXT,
        away INTEGER NOT NULL
    ) STRICT, WITHOUT ROWID;
--# network 2
ALTER TABLE port ADD COLUMN last_port INTEGER;
UPDATE port SET last_port = host_port;
--# snapshot 2
ALTER TABLE snapshot ADD COLUMN filled INTEGER;
--# volume 2
ALTER TABLE volume ADD COLUMN pending INTEGER NOT NULL DEFAULT 0;
CREATE TABLE volume_removal (name TEXT PRIMARY KEY) STRICT;
--# volume 3
CREATE TABLE volume_rename (old TEXT PRIMARY KEY, new TEXT NOT NULL) STRICT;
--# volume 4
CREATE TABLE volume_trash (
        id        TEXT PRIMARY KEY,
        name      TEXT NOT NULL,
        driver    TEXT NOT NULL,
        labels    TEXT NOT NULL,
        options   TEXT NOT NULL,
        created   INTEGER NOT NULL,
        anonymous INTEGER NOT NULL,
        trashed   INTEGER NOT NULL
    ) STRICT;
--# volume 5
CREATE TABLE volume_mount (
        name   TEXT NOT NULL,
        holder TEXT NOT NULL,
        driver TEXT NOT NULL,
        place  TEXT NOT NULL,
        PRIMARY KEY (name, holder)
    ) STRICT;
