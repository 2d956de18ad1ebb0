//! Telemetry on the real ClickHouse engine.
//!
//! Each test has a database of its own on one server: that of `CLICKHOUSE_URL`, which `tests/run` starts once (a real
//! ClickHouse does as well, with `CLICKHOUSE_USER` and `CLICKHOUSE_PASSWORD`). Without it, and where a server has to
//! fail or die, `tests/clickhouse/server.py` is started with the Python of `PROMPTGATE_TEST_PYTHON`.

mod agreement;
mod cluster;
mod dead;
mod doubt;
mod erase;
mod gateway;
mod outage;
mod records;
mod schema;
mod servers;
mod sink;
mod support;
