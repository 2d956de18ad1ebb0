//! The same records in both stores: the same answers, to the last digit.

use std::collections::BTreeSet;

use promptgate::telemetry::{ExchangeFilter, GroupBy, SinkOptions, StatsQuery, Store, Telemetry};
use serde_json::Value;

use super::records::{START, feedback, record};
use super::support::{DEADLINE, Database, on_worker, sqlite, start};

const COUNT: u64 = 600;

fn fill(telemetry: &Telemetry) {
    tokio::task::block_in_place(|| {
        on_worker(telemetry, 0, async |recorder| {
            for i in 0..COUNT {
                recorder.exchange(&record(i));
                if i.is_multiple_of(4) || i.is_multiple_of(9) {
                    recorder.feedback(&feedback(i));
                }
            }
        });
    });
}

/// Both stores, SQLite's first, with the same records.
async fn stores(database: &Database, folder: &std::path::Path) -> [Store; 2] {
    let path = folder.join("telemetry.db");
    for telemetry in [
        start(SinkOptions::Sqlite(sqlite(&path)), &folder.join("a")),
        database.telemetry(&folder.join("b")),
    ] {
        fill(&telemetry);
        assert_eq!(telemetry.drain(DEADLINE).await, 0);
    }
    [Store::sqlite(&path), Store::clickhouse(&database.server)]
}

fn filters() -> Vec<ExchangeFilter> {
    let text = |text: &str| Some(text.to_owned());
    let all = ExchangeFilter::default;
    let at = |i: i64| Some(START + 1_000_000 * i);
    vec![
        all(),
        ExchangeFilter {
            from: at(100),
            to: at(130),
            ..all()
        },
        ExchangeFilter {
            prompt: text("support/greet"),
            version: Some(2),
            ..all()
        },
        ExchangeFilter {
            variant: text("b"),
            environment: text("staging"),
            ..all()
        },
        ExchangeFilter {
            model: text("small"),
            unit: text("ü3"),
            ..all()
        },
        ExchangeFilter {
            outcome: text("timeout"),
            ..all()
        },
        ExchangeFilter {
            min_latency_us: Some(90_000),
            min_cost_nanodollars: Some(45_000),
            ..all()
        },
        ExchangeFilter {
            text: text(r"\ it's 100% ?"),
            ..all()
        },
        ExchangeFilter {
            text: text("nowhere"),
            ..all()
        },
        ExchangeFilter {
            prompt: text(""),
            from: at(300),
            text: text("choices"),
            ..all()
        },
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lists_and_exchanges_are_the_same_in_both_stores() {
    let (database, folder) = (Database::new(), tempfile::tempdir().unwrap());
    let [sqlite, clickhouse] = stores(&database, folder.path()).await;
    for filter in filters() {
        let mut cursor = None;
        let mut seen = BTreeSet::new();
        loop {
            let page = sqlite.exchanges(&filter, 150, cursor.as_deref()).await.unwrap();
            let other = clickhouse.exchanges(&filter, 150, cursor.as_deref()).await.unwrap();
            assert_eq!(page, other, "{filter:?}");
            seen.extend(
                page.items
                    .iter()
                    .map(|item| item["exchange_id"].as_str().unwrap().to_owned()),
            );
            cursor = page.next_cursor;
            if cursor.is_none() {
                break;
            }
        }
        let count = seen.len() as u64;
        assert_eq!(sqlite.count(&filter).await.unwrap(), count, "{filter:?}");
        assert_eq!(clickhouse.count(&filter).await.unwrap(), count, "{filter:?}");
        assert_eq!(count == 0, filter.text.as_deref() == Some("nowhere"), "{filter:?}");
        assert_eq!(count == COUNT, filter == ExchangeFilter::default(), "{filter:?}");
    }
    let mut with_feedback = 0;
    for i in (0..COUNT).step_by(5) {
        let id = record(i).exchange_id.to_string();
        let one = sqlite.exchange(&id).await.unwrap().unwrap();
        assert_eq!(Some(&one), clickhouse.exchange(&id).await.unwrap().as_ref());
        with_feedback += one["feedback"].as_array().map_or(0, Vec::len);
    }
    assert!(with_feedback > 100);
    for id in ["nonsense", &uuid::Uuid::nil().to_string()] {
        assert_eq!(clickhouse.exchange(id).await.unwrap(), None);
    }
    database.drop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stats_are_the_same_in_both_stores_and_right() {
    let (database, folder) = (Database::new(), tempfile::tempdir().unwrap());
    let [sqlite, clickhouse] = stores(&database, folder.path()).await;
    let groups = [
        "",
        "prompt",
        "version",
        "variant",
        "environment",
        "model",
        "provider",
        "outcome",
        "tag:team",
        "tag:it's",
        "tag:none",
        "time:1m",
        "time:1h",
        "prompt,version,variant,environment,model,provider",
        "time:5m,prompt,tag:team",
        "outcome,model",
    ];
    for filter in filters() {
        for words in groups {
            let limits = if filter == ExchangeFilter::default() {
                &[3, 1000][..]
            } else {
                &[1000]
            };
            for &limit in limits {
                let query = StatsQuery {
                    filter: filter.clone(),
                    group_by: words
                        .split(',')
                        .filter(|w| !w.is_empty())
                        .map(|w| w.parse().unwrap())
                        .collect(),
                    limit,
                };
                let one = sqlite.stats(&query).await.unwrap().to_json();
                let other = clickhouse.stats(&query).await.unwrap().to_json();
                assert_eq!(one, other, "{query:?}");
                assert_eq!(
                    one["truncated"] == true,
                    one["groups"].as_array().unwrap().len() == 3 && limit == 3 && more(&sqlite, &query).await
                );
            }
        }
    }
    check_totals(&sqlite).await;
    database.drop().await;
}

async fn more(store: &Store, query: &StatsQuery) -> bool {
    let all = StatsQuery {
        limit: 1000,
        ..query.clone()
    };
    store.stats(&all).await.unwrap().groups.len() > 3
}

/// The figures of one group, worked out by hand.
async fn check_totals(store: &Store) {
    let query = StatsQuery {
        filter: ExchangeFilter::default(),
        group_by: vec![GroupBy::Tag("team".to_owned())],
        limit: 10,
    };
    let stats = store.stats(&query).await.unwrap().to_json();
    let group = &stats["groups"][1];
    let taken: Vec<_> = (0..COUNT).filter(|i| i.is_multiple_of(4)).map(record).collect();
    let rank = |mut values: Vec<u64>, percent: usize| {
        values.sort_unstable();
        values[(percent * values.len()).div_ceil(100) - 1]
    };
    let totals: Vec<u64> = taken.iter().map(|r| r.total_us).collect();
    let firsts: Vec<u64> = taken
        .iter()
        .map(|r| r.time_to_first_token_us)
        .filter(|f| *f > 0)
        .collect();
    assert_eq!(group["tag:team"], "süd");
    assert_eq!(group["requests"], taken.len());
    assert_eq!(group["errors"], taken.iter().filter(|r| r.outcome != "ok").count());
    for (name, percent) in [("p50", 50), ("p95", 95), ("p99", 99)] {
        assert_eq!(group["latency_us"][name], rank(totals.clone(), percent));
        assert_eq!(group["time_to_first_token_us"][name], rank(firsts.clone(), percent));
    }
    assert_eq!(
        group["input_tokens"],
        taken.iter().map(|r| u64::from(r.input_tokens)).sum::<u64>()
    );
    assert_eq!(
        group["cost_nanodollars"],
        taken.iter().map(|r| r.cost_nanodollars).sum::<u64>()
    );
    let notes: &Value = &group["feedback"]["note"];
    assert!(
        notes["count"].as_u64().unwrap() > 0 && notes["mean"].is_null(),
        "{group}"
    );
    assert!(group["feedback"]["helpful"]["mean"].is_f64(), "{group}");
}
