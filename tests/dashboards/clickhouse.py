"""A database of its own on a ClickHouse server, over HTTP."""

import json
import os
import secrets
import urllib.parse

import pytest

from processes import http

MISSING = """CLICKHOUSE_URL is not set. Start the test server (or a real ClickHouse) and set it to its address:
    python3 -m venv /tmp/promptgate-venv && /tmp/promptgate-venv/bin/pip install --no-deps chdb-core
    /tmp/promptgate-venv/bin/python tests/clickhouse/server.py --data /tmp/promptgate-clickhouse --port 0
It prints its address. CLICKHOUSE_USER and CLICKHOUSE_PASSWORD are used as well if they are set."""


class ClickHouse:
    """Queries as a viewer does: read only, except to make and drop the database."""

    def __init__(self):
        self.url = os.environ.get("CLICKHOUSE_URL", "").rstrip("/")
        if not self.url:
            pytest.fail(MISSING, pytrace=False)
        self.user = os.environ.get("CLICKHOUSE_USER", "default")
        self.password = os.environ.get("CLICKHOUSE_PASSWORD", "")
        self.database = f"dashboards_{secrets.token_hex(4)}"

    def configuration(self):
        """The gateway's `[telemetry]` for this database."""
        password = 'password_env = "CLICKHOUSE_PASSWORD"' if self.password else ""
        return f"""
        sink = "clickhouse"
        seal_after = "200ms"
        [telemetry.clickhouse]
        url = "{self.url}"
        database = "{self.database}"
        user = "{self.user}"
        {password}
        """

    def read(self, sql):
        """Columns [(name, type)] and rows of a query."""
        settings = {"database": self.database, "readonly": "1"}
        answer = json.loads(self._send(sql, {**settings, "default_format": "JSONCompact"}))
        return [(column["name"], column["type"]) for column in answer["meta"]], answer["data"]

    def drop(self):
        self._send(f"DROP DATABASE IF EXISTS {self.database}", {})

    def _send(self, sql, settings):
        headers = {"X-ClickHouse-User": self.user}
        if self.password:
            headers["X-ClickHouse-Key"] = self.password
        return http("POST", f"{self.url}/?{urllib.parse.urlencode(settings)}", sql.encode(), headers)[0]
