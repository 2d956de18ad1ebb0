//! What the shipper does with segments that cannot be stored as they are.

use super::*;

#[test]
fn shipper_sink_failing_keeps_records_and_order_until_it_works() {
    let bench = Bench::new();
    let telemetry = bench.start();
    bench.sql("ALTER TABLE exchanges RENAME TO away");
    let stats = telemetry.stats();
    for i in 0..8 {
        record_range(&telemetry, 0, i..i + 1);
    }
    bench.wait(&stats, |f| f.ship_errors >= 2 && f.backlog_segments == 8);
    let figures = stats.figures();
    assert!(figures.oldest_unshipped_at.is_some() && figures.unshipped_bytes > 8 * 4096);
    let mut sizes: Vec<u64> = segments(&bench.spool_dir())
        .iter()
        .map(|p| fs::metadata(p).unwrap().len())
        .collect();
    sizes.sort_unstable();
    assert!(
        sizes[3] < 8192 && sizes[4] == 32 << 20,
        "those that wait are cut: {sizes:?}"
    );

    let left = bench.control.block_on(telemetry.drain(Duration::from_millis(200)));
    assert_eq!(left, 8, "a drain ends at its deadline and says what remains");
    bench.sql("ALTER TABLE away RENAME TO exchanges");
    let telemetry = bench.start();
    assert_eq!(telemetry.stats().figures().recovered_frames, 8);
    assert_eq!(bench.count(telemetry), 8);
}

#[test]
fn shipper_poison_segment_goes_to_dead_and_the_next_is_shipped() {
    let bench = Bench::new();
    let mut row = Vec::new();
    row::encode_exchange(&record(100), &mut row);
    // The last has a good row before the one that is none.
    for (schema, kind, payload) in [
        (2, 9, &row[..]),
        (2, 1, b"no row"),
        (77, 1, &row[..]),
        (2, 1, b"no such row"),
    ] {
        let boot = format!("{schema}-{kind}-{}", payload.len());
        match payload == b"no such row" {
            true => leave(&bench, &boot, schema, &[(kind, &row), (kind, payload)]),
            false => leave(&bench, &boot, schema, &[(kind, payload)]),
        }
    }
    let telemetry = bench.start();
    record_range(&telemetry, 0, 0..5);
    let (stats, shipped) = (telemetry.stats(), telemetry.ship_stats());
    assert_eq!(bench.count(telemetry), 6, "what can be decoded is kept");
    let figures = stats.figures();
    assert_eq!(
        (figures.dead_segments, figures.shipped, figures.unshipped_bytes),
        (1, 6, 0)
    );
    assert_eq!(shipped.dead_rows.load(Relaxed), 3);
    assert_eq!(fs::read_dir(bench.spool_dir().join("dead")).unwrap().count(), 4);
}

#[test]
fn segment_of_an_older_build_ships_into_a_file_that_is_upgraded() {
    let bench = Bench::new();
    fs::create_dir_all(bench.database().parent().unwrap()).unwrap();
    bench.control.block_on(async {
        let options = sqlite::connect_options(&bench.database()).create_if_missing(true);
        let mut connection = SqliteConnection::connect_with(&options).await.unwrap();
        let made = concat!(include_str!("schema_1.sql"), "PRAGMA user_version = 1;");
        sqlx::raw_sql(made).execute(&mut connection).await.unwrap();
        connection.close().await.unwrap();
    });
    let rows: Vec<Vec<u8>> = (0..70)
        .map(|i| {
            let mut row = Vec::new();
            row::tests::encode_exchange_1(&record(i), &mut row);
            row
        })
        .collect();
    let frames: Vec<(u8, &[u8])> = rows.iter().map(|row| (KIND_EXCHANGE, &row[..])).collect();
    leave(&bench, "0001-a", 1, &frames);
    let telemetry = bench.start();
    record_range(&telemetry, 0, 70..75);
    let stats = telemetry.stats();
    let captures = bench.read(telemetry, async |store| {
        let page = store.exchanges(&ExchangeFilter::default(), 100, None).await.unwrap();
        page.items
            .iter()
            .map(|item| item["capture"].clone())
            .collect::<Vec<_>>()
    });
    assert_eq!(
        (captures.len(), captures.iter().filter(|c| *c == "full").count()),
        (75, 70)
    );
    assert_eq!((stats.figures().shipped, stats.figures().dead_segments), (75, 0));
}

#[test]
fn refusals_are_shipped_alone_and_shown_beside_the_figures() {
    let bench = Bench::new();
    let rows: Vec<Vec<u8>> = [(1, "a", 40), (2, "a", 2), (3, "", 50)]
        .into_iter()
        .map(|(i, key_id, requests)| {
            let mut row = Vec::new();
            let refused = RefusalsRecord {
                refusals_id: Uuid::from_u128(i),
                since: START + i as i64,
                until: START + 900,
                key_id,
                endpoint: "chat_completions",
                error_code: "invalid_api_key",
                status_code: 401,
                requests,
                ..RefusalsRecord::default()
            };
            row::encode_refusals(&refused, &mut row);
            row
        })
        .collect();
    let frames: Vec<(u8, &[u8])> = rows.iter().map(|row| (KIND_REFUSALS, &row[..])).collect();
    leave(&bench, "0001-a", row::EXCHANGE_SCHEMA_ID, &frames);
    let ask = |from, outcome: Option<&str>, prompt: Option<&str>| StatsQuery {
        filter: ExchangeFilter {
            from,
            outcome: outcome.map(str::to_owned),
            prompt: prompt.map(str::to_owned),
            ..ExchangeFilter::default()
        },
        group_by: vec![],
        limit: 1,
    };
    bench.read(bench.start(), async |store| {
        let all = store.stats(&ask(None, None, None)).await.unwrap().to_json();
        let refused = |key, requests| {
            json!({"key_id": key, "endpoint": "chat_completions", "error_code": "invalid_api_key",
                   "status_code": 401, "requests": requests})
        };
        assert_eq!(all["refusals"], json!([refused("", 50), refused("a", 42)]));
        assert_eq!(all["groups"], json!([]));
        let later = store
            .refusals(&ask(Some(START + 2), Some("rejected"), None))
            .await
            .unwrap();
        assert_eq!(later.iter().map(|r| r.requests).collect::<Vec<_>>(), [50, 2]);
        for none in [ask(None, Some("ok"), None), ask(None, None, Some("p"))] {
            assert_eq!(store.refusals(&none).await.unwrap(), []);
        }
    });
}

#[test]
fn shipper_damaged_and_missing_segments_are_counted() {
    let bench = Bench::new();
    bench.drain(bench.start());
    bench.sql("ALTER TABLE exchanges RENAME TO away");
    let telemetry = bench.start();
    record_range(&telemetry, 0, 0..10);
    bench.kill(telemetry);
    bench.sql("ALTER TABLE away RENAME TO exchanges");
    let path = segments(&bench.spool_dir()).remove(0);
    let mut bytes = fs::read(&path).unwrap();
    bytes[4096 + 100] ^= 4;
    fs::write(&path, bytes).unwrap();
    let telemetry = bench.start();
    let stats = telemetry.stats();
    assert_eq!(bench.count(telemetry), 9, "a flipped bit costs the record it hit");
    assert_eq!(
        (stats.figures().damaged_segments, stats.figures().damaged_frames),
        (1, 1)
    );

    let telemetry = bench.start();
    bench.sql("ALTER TABLE exchanges RENAME TO away");
    record_range(&telemetry, 0, 10..12);
    let stats = telemetry.stats();
    bench.wait(&stats, |f| f.ship_errors > 0);
    fs::rename(bench.spool_dir(), bench.dir.path().join("away")).unwrap();
    bench.sql("ALTER TABLE away RENAME TO exchanges");
    assert_eq!(bench.count(telemetry), 9, "a vanished segment stops nothing");
    assert_eq!(
        (stats.figures().damaged_frames, stats.figures().unshipped_bytes),
        (2, 0)
    );
}
