#!/bin/bash
# The application owns its database and is no superuser; the copilot's role is limited by row-level security.
set -euo pipefail

psql --set ON_ERROR_STOP=1 --set password="$CONVO_DATABASE_PASSWORD" --username "$POSTGRES_USER" --dbname postgres <<'SQL'
CREATE ROLE convo LOGIN PASSWORD :'password';
CREATE ROLE convo_copilot NOLOGIN;
GRANT convo_copilot TO convo;
CREATE DATABASE convo OWNER convo;
SQL
