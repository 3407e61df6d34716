-- The application's table, and the two roles with what README names and nothing else.
CREATE DATABASE app;
CREATE DATABASE feedback;

CREATE ROLE tiffin_reader LOGIN REPLICATION PASSWORD 'reader';
CREATE ROLE tiffin_writer LOGIN PASSWORD 'writer';
GRANT CONNECT ON DATABASE app TO tiffin_reader;
-- CREATE, because the daemon is to make its schema by itself here.
GRANT CONNECT, CREATE ON DATABASE feedback TO tiffin_writer;

\connect app
CREATE TABLE subscribers_restaurants (
  id            bigserial PRIMARY KEY,
  client_id     varchar NOT NULL,
  restaurant_id varchar NOT NULL
);
INSERT INTO subscribers_restaurants (client_id, restaurant_id)
SELECT 'client-' || i, '123e4567-e89b-12d3-a456-426614174000' FROM generate_series(1, 100) i;
GRANT SELECT (id, restaurant_id, client_id, ctid) ON subscribers_restaurants TO tiffin_reader;
CREATE PUBLICATION tiffin FOR TABLE subscribers_restaurants (id, client_id, restaurant_id);

\connect feedback
GRANT USAGE, CREATE ON SCHEMA public TO tiffin_writer;
