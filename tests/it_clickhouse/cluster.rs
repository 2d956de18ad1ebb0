//! Cluster mode, as far as an engine without a keeper can run it: a cluster of one server, on which `ON CLUSTER` and what
//! makes an engine replicated are left out by the test server; the statements themselves are only parsed.

use promptgate::telemetry::clickhouse::ClickHouseSink;
use promptgate::telemetry::clickhouse::schema::{MIGRATIONS, Schema};
use promptgate::telemetry::row::EXCHANGE_COLUMNS;
use promptgate::telemetry::sink::{Batch, Stored};
use promptgate::telemetry::{ExchangeFilter, GroupBy, StatsQuery, Store};

use super::sink::{batch, rows};
use super::support::{DEADLINE, Database, Server, record_range};

fn clustered(url: &str) -> Database {
    let mut database = Database::on(url);
    database.server.cluster = Some("main".to_owned());
    database
}

#[tokio::test]
async fn every_statement_for_a_cluster_is_one_that_clickhouse_reads() {
    let mut database = Database::new();
    database.server.cluster = Some("main".to_owned());
    database.server.ttl_days = 30;
    let schema = Schema::new(&database.server, &database.server.urls[0], true);
    let plan = schema.plan().await.unwrap();
    let statements = plan.pending.iter().flat_map(|migration| schema.statements(migration));
    let all: Vec<String> = plan
        .database
        .iter()
        .cloned()
        .chain(statements)
        .chain(plan.settings.clone())
        .collect();
    assert_eq!(plan.pending.len(), MIGRATIONS.len());
    for wanted in [
        "CREATE TABLE IF NOT EXISTS exchanges_local ON CLUSTER 'main'",
        "ENGINE = ReplicatedMergeTree('/clickhouse/tables/{shard}/{database}/{table}', '{replica}')",
        "ENGINE = ReplicatedAggregatingMergeTree(",
        "ON CLUSTER 'main' TO rollup_minute_local AS",
        "ALTER TABLE exchanges_local ON CLUSTER 'main' ADD COLUMN IF NOT EXISTS capture",
        "ALTER TABLE exchanges ON CLUSTER 'main' ADD COLUMN IF NOT EXISTS capture",
        "ALTER TABLE refusals_local ON CLUSTER 'main' MODIFY TTL toDateTime(since) + toIntervalDay(30)",
        "ALTER TABLE exchanges_local ON CLUSTER 'main' MODIFY SETTING fsync_after_insert = 1, fsync_part_directory = 1",
    ] {
        assert!(all.iter().any(|sql| sql.contains(wanted)), "{wanted} in {all:#?}");
    }
    let somewhere = Database::on(&database.server.urls[0]);
    somewhere.schema().migrate().await.unwrap();
    for sql in &all {
        somewhere.sql(&format!("EXPLAIN AST {sql}")).await;
    }
    somewhere.drop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cluster_takes_batches_locally_and_is_read_as_one() {
    let (data, spool) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let server = Server::start_with(data.path(), 0, &["--cluster", "main"]);
    let database = clustered(&server.url);
    server
        .fault(serde_json::json!({"lose_ack": 2, "match": "INTO exchanges_local"}))
        .await;
    let telemetry = database.telemetry(spool.path());
    tokio::task::block_in_place(|| record_range(&telemetry, 0, 0..300));
    let stats = telemetry.stats();
    assert_eq!(telemetry.drain(DEADLINE).await, 0);
    assert!(stats.figures().ship_errors >= 2);
    assert_eq!(database.counts().await, (300, 300, 300));
    let engines =
        "SELECT name, engine FROM system.tables WHERE database = currentDatabase() AND name LIKE 'exch%' ORDER BY 1";
    assert_eq!(
        database.sql(engines).await,
        "exchanges\tDistributed\nexchanges_local\tMergeTree"
    );
    let columns = "SELECT count() FROM system.columns WHERE database = currentDatabase() AND table = 'exchanges'";
    assert_eq!(database.sql(columns).await, EXCHANGE_COLUMNS.len().to_string());
    assert!(database.schema().plan().await.unwrap().is_empty());

    // What an earlier process may have sent is asked for through the Distributed table.
    let mut sink = ClickHouseSink::new(&database.server, "node-1", false).with_memory(-1);
    let sent = rows(0..300);
    let in_doubt = Batch {
        doubt_since: Some(0),
        ..batch("another/0-1", &sent)
    };
    assert_eq!(sink.store(&in_doubt).await.unwrap(), Stored::Before);
    let store = Store::clickhouse(&database.server);
    let page = store.exchanges(&ExchangeFilter::default(), 10, None).await.unwrap();
    let id = page.items[3]["exchange_id"].as_str().unwrap().to_owned();
    assert_eq!(store.exchange(&id).await.unwrap().unwrap()["exchange_id"], id);
    let query = StatsQuery {
        filter: ExchangeFilter::default(),
        group_by: vec![GroupBy::Prompt],
        limit: 10,
    };
    let groups = store.stats(&query).await.unwrap().groups;
    assert_eq!(groups.iter().map(|group| group.figures.requests).sum::<u64>(), 300);
}
