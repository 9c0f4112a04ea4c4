-- What Telegraf (telegraf.conf beside this file) writes into, and what the dashboard in ../grafana reads.
-- For TimescaleDB; without that extension it is plain PostgreSQL (12 or newer). May be run again.
--
--   createdb tinysight && psql tinysight -v ON_ERROR_STOP=1 -f schema.sql
--
-- A message may come more than once (QoS 1, retained messages, a device that sends again what nobody acknowledged).
-- Each table has a key that names what a row says, so that a repeat changes nothing: (boot_id, seq) names an event.
-- The time stands in every key because TimescaleDB wants it there; a repeat has the same.

CREATE TABLE IF NOT EXISTS event (
    time       timestamptz NOT NULL,  -- when the frame was captured
    site       text NOT NULL,
    device     text NOT NULL,
    camera     text NOT NULL,
    boot_id    text NOT NULL,
    seq        bigint NOT NULL,
    id         text NOT NULL,         -- of the object
    type       text NOT NULL,         -- start, update, end
    label      text NOT NULL,
    score      double precision NOT NULL,
    best_score double precision NOT NULL,
    replayed   boolean NOT NULL,
    started_at timestamptz NOT NULL,
    ended_at   timestamptz,
    payload    jsonb NOT NULL,        -- all of it: zones, lines, rules, box, model, latency
    PRIMARY KEY (boot_id, seq, time)
);

CREATE TABLE IF NOT EXISTS counts (
    time   timestamptz NOT NULL,
    site   text NOT NULL,
    device text NOT NULL,
    camera text NOT NULL,
    zone   text NOT NULL,             -- '' is the whole picture
    label  text NOT NULL,
    number integer NOT NULL,
    PRIMARY KEY (site, device, camera, zone, label, time)
);

CREATE TABLE IF NOT EXISTS crossed (
    time      timestamptz NOT NULL,
    site      text NOT NULL,
    device    text NOT NULL,
    camera    text NOT NULL,
    boot_id   text NOT NULL,
    line      text NOT NULL,
    direction text NOT NULL,          -- in, out
    total     bigint NOT NULL,        -- since the start of that boot
    PRIMARY KEY (site, device, camera, line, direction, time)
);

CREATE TABLE IF NOT EXISTS health (
    time          timestamptz NOT NULL,
    site          text NOT NULL,
    device        text NOT NULL,
    boot_id       text NOT NULL,
    verdict       text NOT NULL,      -- ok, degraded, failing
    code          text NOT NULL,
    cpu_percent   double precision,
    memory_mib    double precision,
    temperature_c double precision,
    waiting       bigint NOT NULL,    -- events on the device that the broker has not got yet
    last_seq      bigint NOT NULL,
    payload       jsonb NOT NULL,
    PRIMARY KEY (site, device, time)
);

CREATE TABLE IF NOT EXISTS camera_health (
    time       timestamptz NOT NULL,
    site       text NOT NULL,
    device     text NOT NULL,
    camera     text NOT NULL,
    fps        double precision NOT NULL,
    age_p95_ms double precision,
    PRIMARY KEY (site, device, camera, time)
);

DO $$
DECLARE
    each text;
BEGIN
    IF EXISTS (SELECT FROM pg_available_extensions WHERE name = 'timescaledb') THEN
        CREATE EXTENSION IF NOT EXISTS timescaledb;
        FOREACH each IN ARRAY ARRAY['event', 'counts', 'crossed', 'health', 'camera_health'] LOOP
            PERFORM create_hypertable(each, 'time', if_not_exists => true, migrate_data => true);
        END LOOP;
    END IF;
END $$;

CREATE INDEX IF NOT EXISTS event_of_device ON event (site, device, time DESC);

-- How many events of each start of each device are missing here, between the first and the last that came.
CREATE OR REPLACE VIEW missing AS
SELECT site, device, boot_id, min(time) AS since, max(time) AS until, count(*) AS events,
       max(seq) - min(seq) + 1 - count(*) AS missing
FROM event GROUP BY site, device, boot_id;

-- Telegraf's side. The trigger takes every row away again, so the table stays empty.
CREATE TABLE IF NOT EXISTS inbox (
    time   timestamp,                 -- when Telegraf got it; what counts stands in the message
    site   text,
    device text,
    camera text,
    kind   text,
    value  text
);

CREATE OR REPLACE FUNCTION take_in() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    said jsonb;
BEGIN
    IF NEW.value = '' THEN            -- a topic that was cleared
        RETURN NULL;
    END IF;
    said := NEW.value::jsonb;
    IF NEW.kind = 'event' THEN
        INSERT INTO event VALUES (
            (said->>'seen_at')::timestamptz, said->>'site', said->>'device', said->>'camera', said->>'boot_id',
            (said->>'seq')::bigint, said->>'id', said->>'type', said->>'label', (said->>'score')::float8,
            (said->>'best_score')::float8, (said->>'replayed')::boolean, (said->>'started_at')::timestamptz,
            (said->>'ended_at')::timestamptz, said
        ) ON CONFLICT DO NOTHING;
    ELSIF NEW.kind = 'counts' THEN
        INSERT INTO counts
        SELECT (said->>'at')::timestamptz, NEW.site, NEW.device, NEW.camera, places.zone, labels.key,
               labels.value::integer
        FROM (SELECT '' AS zone, said->'objects' AS numbers
              UNION ALL SELECT zones.key, zones.value FROM jsonb_each(said->'zones') AS zones) AS places,
             jsonb_each_text(places.numbers) AS labels
        ON CONFLICT DO NOTHING;
        INSERT INTO crossed
        SELECT (said->>'at')::timestamptz, NEW.site, NEW.device, NEW.camera, said->>'boot_id', lines.key, ways.key,
               ways.value::bigint
        FROM jsonb_each(said->'lines') AS lines, jsonb_each_text(lines.value) AS ways
        ON CONFLICT DO NOTHING;
    ELSIF NEW.kind = 'health' THEN
        INSERT INTO health VALUES (
            (said->>'at')::timestamptz, NEW.site, NEW.device, said->>'boot_id', said->'verdict'->>'state',
            said->'verdict'->>'code', (said->>'cpu_percent')::float8, (said->>'memory_mib')::float8,
            (said->>'temperature_c')::float8, (said->'outbox'->>'depth')::bigint,
            (said->'outbox'->>'last_seq')::bigint, said
        ) ON CONFLICT DO NOTHING;
        INSERT INTO camera_health
        SELECT (said->>'at')::timestamptz, NEW.site, NEW.device, cameras.key, (cameras.value->>'fps')::float8,
               (cameras.value->'frame_age_ms'->>'p95')::float8
        FROM jsonb_each(said->'cameras') AS cameras
        ON CONFLICT DO NOTHING;
    END IF;
    RETURN NULL;
EXCEPTION WHEN data_exception OR integrity_constraint_violation THEN
    -- One message that is not of the contract must not stop the others of its batch; a full disk must.
    RAISE WARNING 'inbox: % of %/% is not understood: %', NEW.kind, NEW.site, NEW.device, SQLERRM;
    RETURN NULL;
END $$;

DROP TRIGGER IF EXISTS take_in ON inbox;
CREATE TRIGGER take_in BEFORE INSERT ON inbox FOR EACH ROW EXECUTE FUNCTION take_in();
