//! Where tables lie: on one server, or on every server of a cluster. Pure: statements in, statements out.
//!
//! The migrations are written for one server. For a cluster each becomes `ON CLUSTER`:
//!
//! | on one server | in a cluster |
//! |---|---|
//! | table `t`, MergeTree | `t_local`, ReplicatedMergeTree, and `t`, Distributed over all `t_local` |
//! | the view from `exchanges` to `rollup_minute` | the view from `exchanges_local` to `rollup_minute_local` |
//! | `ALTER TABLE t` | the same of `t_local`, then of `t` |
//! | `schema_migrations` | replicated on all servers, whatever their shard |
//!
//! Rows are inserted into `t_local` and read through `t`. Inserting through the Distributed table would cut a batch into
//! a piece a shard: one shard that is down would stop all, and an insert could be stored in part. A local insert is one
//! block, known by its token to all replicas of the shard; and a batch whose fate is unknown is asked for through `t`,
//! which sees every shard.
//!
//! The servers' macros `{shard}` and `{replica}` have to be set, as for any replicated table.

use crate::config::ClickHouse;

/// How a database's tables are laid out.
#[derive(Debug, Clone, Copy)]
pub(super) struct Layout<'a> {
    pub database: &'a str,
    pub cluster: Option<&'a str>,
}

impl<'a> Layout<'a> {
    pub fn of(server: &'a ClickHouse) -> Self {
        Self {
            database: &server.database,
            cluster: server.cluster.as_deref(),
        }
    }

    /// The table that holds the rows of `table`.
    pub fn local(self, table: &str) -> String {
        match self.cluster {
            None => table.to_owned(),
            Some(_) => format!("{table}_local"),
        }
    }

    pub fn create_database(self) -> String {
        format!("CREATE DATABASE IF NOT EXISTS {}{}", self.database, self.on_cluster())
    }

    /// The statements that a statement of a migration becomes.
    pub fn statements(self, sql: &str) -> Vec<String> {
        let Some(cluster) = self.cluster else {
            return vec![sql.to_owned()];
        };
        let on_cluster = self.on_cluster();
        let (comment, statement) = sql.split_at(start_of(sql));
        if let Some(rest) = statement.strip_prefix("CREATE TABLE IF NOT EXISTS ") {
            let (table, rest) = word(rest);
            let local = format!("{table}_local");
            let holds = format!(
                "CREATE TABLE IF NOT EXISTS {local}{on_cluster}{}",
                replicated(rest, "{shard}", "{replica}")
            );
            let reads = format!(
                "CREATE TABLE IF NOT EXISTS {table}{on_cluster} AS {database}.{local}\n\
                 ENGINE = Distributed('{cluster}', '{database}', '{local}', rand())",
                database = self.database,
            );
            return vec![format!("{comment}{holds}"), reads];
        }
        if let Some(rest) = statement.strip_prefix("CREATE MATERIALIZED VIEW IF NOT EXISTS ") {
            let (view, rest) = word(rest);
            let rest = rest
                .replacen(" AS\n", "_local AS\n", 1)
                .replace("\nFROM exchanges\n", "\nFROM exchanges_local AS exchanges\n");
            return vec![format!(
                "{comment}CREATE MATERIALIZED VIEW IF NOT EXISTS {view}{on_cluster}{rest}"
            )];
        }
        let rest = statement.strip_prefix("ALTER TABLE ").unwrap_or_default();
        let (table, rest) = word(rest);
        let alter = |table: &str| format!("ALTER TABLE {table}{on_cluster}{rest}");
        vec![format!("{comment}{}", alter(&format!("{table}_local"))), alter(table)]
    }

    /// An ALTER of the table that holds the rows of `table`.
    pub fn alter(self, table: &str, what: &str) -> String {
        format!("ALTER TABLE {}{} {what}", self.local(table), self.on_cluster())
    }

    /// The table of what was applied; in a cluster one for all shards, so its replicas are named by shard as well.
    pub fn migrations_table(self, create: &str) -> String {
        match self.cluster {
            None => create.to_owned(),
            Some(_) => {
                let (name, rest) = word(&create["CREATE TABLE IF NOT EXISTS ".len()..]);
                let rest = replicated(rest, "all", "{shard}-{replica}");
                format!("CREATE TABLE IF NOT EXISTS {name}{}{rest}", self.on_cluster())
            }
        }
    }

    fn on_cluster(self) -> String {
        self.cluster
            .map_or_else(String::new, |name| format!(" ON CLUSTER '{name}'"))
    }
}

/// Where the comment lines before a statement end.
fn start_of(sql: &str) -> usize {
    let lines = sql.split_inclusive('\n');
    lines
        .take_while(|line| line.starts_with("--") || line.trim().is_empty())
        .map(str::len)
        .sum()
}

/// The first word, and what follows it.
fn word(text: &str) -> (&str, &str) {
    text.split_at(text.find(char::is_whitespace).unwrap_or(text.len()))
}

/// Makes an engine and its window those of a replicated table.
fn replicated(definition: &str, shard: &str, replica: &str) -> String {
    let arguments = format!("('/clickhouse/tables/{shard}/{{database}}/{{table}}', '{replica}')");
    let mut text = definition.to_owned();
    for engine in ["AggregatingMergeTree", "MergeTree"] {
        if let Some(at) = text.find(&format!("ENGINE = {engine}")) {
            let name = at + "ENGINE = ".len();
            text.insert_str(name + engine.len(), &arguments);
            text.insert_str(name, "Replicated");
            break;
        }
    }
    text.replace(
        "non_replicated_deduplication_window = 10000",
        "replicated_deduplication_window = 10000, replicated_deduplication_window_seconds = 604800",
    )
}

#[cfg(test)]
mod tests {
    use insta::assert_snapshot;

    use super::*;

    const CLUSTER: Layout<'static> = Layout {
        database: "promptgate",
        cluster: Some("main"),
    };

    #[test]
    fn one_server_takes_statements_as_they_are() {
        let alone = Layout {
            cluster: None,
            ..CLUSTER
        };
        assert_eq!(alone.statements("-- a\nCREATE TABLE t"), ["-- a\nCREATE TABLE t"]);
        assert_eq!(alone.local("t"), "t");
        assert_eq!(alone.alter("t", "REMOVE TTL"), "ALTER TABLE t REMOVE TTL");
        assert_eq!(alone.create_database(), "CREATE DATABASE IF NOT EXISTS promptgate");
    }

    #[test]
    fn cluster_has_a_replicated_table_behind_a_distributed_one() {
        let table = "-- why\nCREATE TABLE IF NOT EXISTS t\n(\n    a UUID\n)\nENGINE = AggregatingMergeTree\nORDER BY a\n\
                     SETTINGS non_replicated_deduplication_window = 10000, x = 1";
        let view =
            "CREATE MATERIALIZED VIEW IF NOT EXISTS v TO t AS\nSELECT exchanges.a AS b\nFROM exchanges\nGROUP BY b";
        let all = [table, view, "ALTER TABLE t ADD COLUMN IF NOT EXISTS b UInt8"];
        let statements: Vec<String> = all.iter().flat_map(|sql| CLUSTER.statements(sql)).collect();
        assert_snapshot!(statements.join(";\n\n"), @r"
        -- why
        CREATE TABLE IF NOT EXISTS t_local ON CLUSTER 'main'
        (
            a UUID
        )
        ENGINE = ReplicatedAggregatingMergeTree('/clickhouse/tables/{shard}/{database}/{table}', '{replica}')
        ORDER BY a
        SETTINGS replicated_deduplication_window = 10000, replicated_deduplication_window_seconds = 604800, x = 1;

        CREATE TABLE IF NOT EXISTS t ON CLUSTER 'main' AS promptgate.t_local
        ENGINE = Distributed('main', 'promptgate', 't_local', rand());

        CREATE MATERIALIZED VIEW IF NOT EXISTS v ON CLUSTER 'main' TO t_local AS
        SELECT exchanges.a AS b
        FROM exchanges_local AS exchanges
        GROUP BY b;

        ALTER TABLE t_local ON CLUSTER 'main' ADD COLUMN IF NOT EXISTS b UInt8;

        ALTER TABLE t ON CLUSTER 'main' ADD COLUMN IF NOT EXISTS b UInt8
        ");
    }

    #[test]
    fn cluster_has_one_list_of_migrations() {
        let create =
            "CREATE TABLE IF NOT EXISTS schema_migrations (\n    version UInt32\n) ENGINE = MergeTree ORDER BY version";
        assert_snapshot!(CLUSTER.migrations_table(create), @r"
        CREATE TABLE IF NOT EXISTS schema_migrations ON CLUSTER 'main' (
            version UInt32
        ) ENGINE = ReplicatedMergeTree('/clickhouse/tables/all/{database}/{table}', '{shard}-{replica}') ORDER BY version
        ");
        assert_snapshot!(CLUSTER.alter("t", "REMOVE TTL"), @"ALTER TABLE t_local ON CLUSTER 'main' REMOVE TTL");
        assert_snapshot!(CLUSTER.create_database(), @"CREATE DATABASE IF NOT EXISTS promptgate ON CLUSTER 'main'");
    }
}
