//! Several servers: one that fails is left for the next, and a batch in doubt is not stored by two.

use std::time::Duration;

use promptgate::telemetry::clickhouse::ClickHouseSink;
use promptgate::telemetry::sink::{Batch, Stored};
use promptgate::telemetry::{ExchangeFilter, Store};
use serde_json::json;

use super::sink::{batch, rows};
use super::support::{Database, Server};

/// Two servers that know nothing of each other, the hardest case: neither knows the other's tokens.
struct Two {
    servers: [Server; 2],
    databases: [Database; 2],
    /// Both as one configuration.
    both: Database,
    _data: [tempfile::TempDir; 2],
}

impl Two {
    fn start() -> Self {
        let data = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
        let servers = [Server::start(data[0].path(), 0), Server::start(data[1].path(), 0)];
        let mut both = Database::on(&servers[0].url);
        both.server.urls.push(servers[1].url.clone());
        let alone = |server: &Server| {
            let mut database = Database::on(&server.url);
            database.server.database.clone_from(&both.server.database);
            database
        };
        Self {
            databases: [alone(&servers[0]), alone(&servers[1])],
            servers,
            both,
            _data: data,
        }
    }

    fn sink(&self, patience: Duration) -> ClickHouseSink {
        ClickHouseSink::new(&self.both.server, "node-1", false)
            .with_patience(patience)
            .with_memory(-1)
    }

    /// Rows of each; 0 where there is no table.
    async fn counts(&self) -> [u64; 2] {
        let mut counts = [0; 2];
        for (count, database) in counts.iter_mut().zip(&self.databases) {
            let found = database.try_sql("SELECT count() FROM exchanges").await;
            *count = found.map_or(0, |count| count.parse().unwrap());
        }
        counts
    }
}

const LONG: Duration = Duration::from_secs(600);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn server_that_cannot_be_reached_is_left_for_the_next() {
    let mut two = Two::start();
    // Nobody listens there.
    two.both.server.urls.insert(0, "http://127.0.0.1:1".to_owned());
    let mut sink = two.sink(LONG);
    sink.prepare().await.unwrap();
    let (first, second, third) = (rows(0..10), rows(10..20), rows(20..30));
    assert_eq!(sink.store(&batch("boot/0-1", &first)).await.unwrap(), Stored::Now);
    assert_eq!(two.counts().await, [10, 0]);
    // It stays with the one that works; one that refuses for certain is left as well.
    assert_eq!(sink.store(&batch("boot/0-2", &second)).await.unwrap(), Stored::Now);
    two.servers[0]
        .fault(json!({"error": 1, "code": 516, "match": "INTO exchanges"}))
        .await;
    assert_eq!(sink.store(&batch("boot/0-3", &third)).await.unwrap(), Stored::Now);
    assert_eq!(two.counts().await, [20, 10]);

    let store = Store::clickhouse(&two.both.server);
    assert_eq!(
        store.count(&ExchangeFilter::default()).await.unwrap(),
        20,
        "the next is asked"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn batch_in_doubt_stays_with_its_server_until_that_is_known_or_long_away() {
    let two = Two::start();
    let rows = rows(0..10);
    let mut sink = two.sink(LONG);
    two.servers[0]
        .fault(json!({"lose_ack": 1, "match": "INTO exchanges"}))
        .await;
    sink.store(&batch("boot/0-1", &rows)).await.unwrap_err();
    two.servers[0].fault(json!({"down": true})).await;
    for _ in 0..3 {
        let error = sink.store(&batch("boot/0-1", &rows)).await.unwrap_err();
        assert!(!error.is_poison(), "{error}");
    }
    assert_eq!(
        two.counts().await[1],
        0,
        "the other server is not given what the first may have"
    );
    two.servers[0].fault(json!({"down": false})).await;
    // Its token is known there.
    sink.store(&batch("boot/0-1", &rows)).await.unwrap();
    assert_eq!(two.counts().await, [10, 0]);

    // Away for longer than patience lasts: the next takes it.
    let more = super::sink::rows(10..20);
    let mut sink = two.sink(Duration::ZERO);
    two.servers[0]
        .fault(json!({"drop": 1, "match": "INTO exchanges"}))
        .await;
    sink.store(&batch("boot/0-2", &more)).await.unwrap_err();
    two.servers[0].fault(json!({"down": true})).await;
    assert_eq!(sink.store(&batch("boot/0-2", &more)).await.unwrap(), Stored::Now);
    two.servers[0].fault(json!({"down": false})).await;
    assert_eq!(two.counts().await, [10, 10]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn batch_of_an_earlier_process_is_asked_for_everywhere() {
    let two = Two::start();
    let rows = rows(0..10);
    let of_before = |token: &str| Batch {
        doubt_since: Some(jiff::Timestamp::now().as_microsecond()),
        ..batch(token, &rows)
    };
    two.sink(LONG).prepare().await.unwrap();
    // The second has it; the first, which comes first now, does not.
    let mut second = ClickHouseSink::new(&two.databases[1].server, "node-1", false);
    second.store(&batch("boot/0-1", &rows)).await.unwrap();
    assert_eq!(
        two.sink(LONG).store(&of_before("boot/0-1")).await.unwrap(),
        Stored::Before
    );
    assert_eq!(two.counts().await, [0, 10]);

    // As long as the second cannot be asked it is waited for, then no longer.
    two.servers[1].fault(json!({"down": true})).await;
    let mut sink = two.sink(LONG);
    sink.store(&of_before("boot/0-1")).await.unwrap_err();
    assert_eq!(two.counts().await[0], 0);
    assert_eq!(
        two.sink(Duration::ZERO).store(&of_before("boot/0-1")).await.unwrap(),
        Stored::Now
    );
    two.servers[1].fault(json!({"down": false})).await;
    assert_eq!(
        two.counts().await,
        [10, 10],
        "not replicated: what docs/operations.md says of it"
    );
}
