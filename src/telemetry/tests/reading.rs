//! Reading records back.

use super::*;

#[test]
fn store_pages_are_seeks_newest_first() {
    let bench = Bench::new();
    let telemetry = bench.start();
    record_range(&telemetry, 0, 0..60);
    bench.read(telemetry, async |store| {
        type Keep = fn(u64) -> bool;
        let ids = |page: &ExchangePage| {
            page.items
                .iter()
                .map(|i| i["exchange_id"].clone())
                .collect::<Vec<Value>>()
        };
        let wanted = |keep: Keep| -> Vec<Value> {
            (0..60)
                .rev()
                .filter(|i| keep(*i))
                .map(|i| record(i).exchange_id.to_string().into())
                .collect()
        };
        for (prompt, environment, keep) in [
            (None, None, (|_| true) as Keep),
            (Some("support/greet"), None, |i| i.is_multiple_of(3)),
            (None, Some("staging"), |i| !i.is_multiple_of(2)),
            (Some("support/greet"), Some("production"), |i| i.is_multiple_of(6)),
        ] {
            let filter = ExchangeFilter {
                prompt: prompt.map(str::to_owned),
                environment: environment.map(str::to_owned),
                ..ExchangeFilter::default()
            };
            assert_eq!(store.count(&filter).await.unwrap(), wanted(keep).len() as u64);
            let (mut got, mut cursor) = (Vec::new(), None);
            loop {
                let page = store.exchanges(&filter, 5, cursor.as_deref()).await.unwrap();
                assert!(page.items.len() <= 5);
                got.extend(ids(&page));
                cursor = page.next_cursor;
                if cursor.is_none() {
                    break;
                }
            }
            assert_eq!(got, wanted(keep));
        }
        let bad = store.exchanges(&ExchangeFilter::default(), 5, Some("x")).await;
        assert!(matches!(bad, Err(StoreError::BadCursor(c)) if c == "x"));
    });
}

#[test]
fn store_variant_summary_is_exact() {
    let bench = Bench::new();
    let telemetry = bench.start();
    on_worker(&telemetry, 0, async |recorder| {
        for i in 0..300 {
            let mut record = record(6 * i);
            record.version = 1 + (i % 3 == 0) as u32;
            record.variant = if record.version == 2 { "b" } else { "control" };
            record.total_us = (i * 7919) % 1000;
            record.streaming = i % 2 == 0;
            record.time_to_first_token_us = if i % 2 == 0 { (i * 31) % 400 } else { 999 };
            record.outcome = if i % 50 == 0 { "timeout" } else { "ok" };
            record.input_tokens = 3;
            record.output_tokens = 2;
            record.cost_nanodollars = 11;
            recorder.exchange(&record);
        }
        recorder.close().await;
    });
    let since = record(6 * 60).started_at;
    let got = bench.read(telemetry, async |store| {
        let none = store.variant_summary("support/greet", "staging", 0).await.unwrap();
        assert_eq!(none, []);
        store
            .variant_summary("support/greet", "production", since)
            .await
            .unwrap()
    });
    let rank = |mut values: Vec<u64>, percent: usize| -> Option<u64> {
        values.sort_unstable();
        let rank = (percent * values.len()).div_ceil(100);
        values.get(rank.checked_sub(1)?).copied()
    };
    let wanted: Vec<VariantSummary> = [(1, "control"), (2, "b")]
        .into_iter()
        .map(|(version, variant)| {
            let taken: Vec<u64> = (60..300).filter(|i| (i % 3 == 0) == (version == 2)).collect();
            let totals: Vec<u64> = taken.iter().map(|i| (i * 7919) % 1000).collect();
            let firsts = taken
                .iter()
                .filter(|i| **i % 2 == 0)
                .map(|i| (i * 31) % 400)
                .filter(|f| *f > 0);
            let firsts: Vec<u64> = firsts.collect();
            let requests = taken.len() as u64;
            VariantSummary {
                version,
                variant: variant.into(),
                requests,
                errors: taken.iter().filter(|i| **i % 50 == 0).count() as u64,
                p50_total_us: rank(totals.clone(), 50).unwrap(),
                p99_total_us: rank(totals, 99).unwrap(),
                p50_time_to_first_token_us: rank(firsts.clone(), 50),
                p99_time_to_first_token_us: rank(firsts, 99),
                input_tokens: 3 * requests,
                output_tokens: 2 * requests,
                cost_nanodollars: 11 * requests,
            }
        })
        .collect();
    assert_eq!(got, wanted);
}

#[test]
fn sqlite_columns_are_those_of_the_rows() {
    let bench = Bench::new();
    bench.drain(bench.start());
    bench.control.block_on(async {
        let mut connection = SqliteConnection::connect_with(&sqlite::connect_options(&bench.database()))
            .await
            .unwrap();
        for (sql, columns) in [
            ("SELECT name FROM pragma_table_info('exchanges')", &EXCHANGE_COLUMNS[..]),
            ("SELECT name FROM pragma_table_info('feedback')", &FEEDBACK_COLUMNS[..]),
            ("SELECT name FROM pragma_table_info('refusals')", &REFUSALS_COLUMNS[..]),
        ] {
            let rows = sqlx::query(sql).fetch_all(&mut connection).await.unwrap();
            let mut found: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
            let mut wanted: Vec<String> = columns.iter().map(|c| c.name.to_owned()).collect();
            found.sort();
            wanted.sort();
            assert_eq!(found, wanted);
        }
    });
}
