//! Erasing in both stores: the same exchanges, all of their words, none of their figures.

use promptgate::domain::exchange::{ExchangeRecord, FeedbackRecord};
use promptgate::telemetry::erase::Erase;
use promptgate::telemetry::{ExchangeFilter, SinkOptions, StatsQuery, Store};
use serde_json::{Value, json};

use super::records::{START, feedback, record};
use super::support::{DEADLINE, Database, on_worker, sqlite, start};

const COUNT: u64 = 200;
const ADA: &str = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
const BOB: &str = "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb";

/// Every fourth is Ada's as the user, another fourth hers as the unit, the others are Bob's.
fn exchange(i: u64) -> ExchangeRecord<'static> {
    let (user, unit) = match i % 4 {
        0 => (ADA, ADA),
        1 => (BOB, ADA),
        _ => (BOB, ""),
    };
    ExchangeRecord {
        user,
        unit,
        session: "private-session",
        request: b"{\"messages\": \"private\"}",
        response: b"private",
        response_id: "",
        capture: "full",
        ..record(i)
    }
}

async fn all(store: &Store) -> Vec<Value> {
    let filter = ExchangeFilter::default();
    let (mut all, mut cursor) = (Vec::new(), None);
    loop {
        let page = store.exchanges(&filter, 500, cursor.as_deref()).await.unwrap();
        all.extend(page.items);
        match page.next_cursor {
            Some(next) => cursor = Some(next),
            None => return all,
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn erased_exchanges_keep_their_figures_and_nothing_else() {
    let (database, folder) = (Database::new(), tempfile::tempdir().unwrap());
    let path = folder.path().join("telemetry.db");
    for telemetry in [
        start(SinkOptions::Sqlite(sqlite(&path)), &folder.path().join("a")),
        database.telemetry(&folder.path().join("b")),
    ] {
        tokio::task::block_in_place(|| {
            on_worker(&telemetry, 0, async |recorder| {
                for i in 0..COUNT {
                    let exchange = exchange(i);
                    recorder.exchange(&exchange);
                    recorder.feedback(&FeedbackRecord {
                        exchange_id: exchange.exchange_id,
                        comment: "private",
                        ..feedback(i)
                    });
                }
            });
        });
        assert_eq!(telemetry.drain(DEADLINE).await, 0);
    }
    let stores = [Store::sqlite(&path), Store::clickhouse(&database.server)];
    let figures = StatsQuery {
        filter: ExchangeFilter::default(),
        group_by: vec!["prompt".parse().unwrap(), "outcome".parse().unwrap()],
        limit: 100,
    };
    // Those that began later are not asked for.
    let until = START + 1_000_000 * 99;
    let erase = |hash: &str| Erase {
        user_hash: hash.to_owned(),
        until,
    };
    let mut listed = Vec::new();
    for store in &stores {
        let before = store.stats(&figures).await.unwrap().to_json();
        assert_eq!(store.erase(&[erase("cccc"), erase(ADA)]).await.unwrap(), [0, 50]);
        assert_eq!(store.erase(&[erase(ADA)]).await.unwrap(), [0], "repeated");
        assert_eq!(before, store.stats(&figures).await.unwrap().to_json());
        let exchanges = all(store).await;
        assert_eq!(exchanges.len() as u64, COUNT);
        for (i, exchange) in exchanges.iter().rev().enumerate() {
            let erased = i < 100 && i % 4 < 2;
            assert_eq!(exchange["capture"], if erased { "erased" } else { "full" }, "{i}");
            let shown = store
                .exchange(exchange["exchange_id"].as_str().unwrap())
                .await
                .unwrap()
                .unwrap();
            assert_eq!(shown.to_string().contains("private"), !erased, "{shown}");
            if erased {
                let empty = (&shown["tags"], &shown["document_ids"], &shown["variables"]);
                assert_eq!(empty, (&json!({}), &json!([]), &json!("")));
            }
        }
        listed.push(exchanges);
    }
    assert_eq!(listed[0], listed[1]);
    for store in stores {
        store.close().await;
    }
    database.drop().await;
}
