//! Rows against their table of columns and against themselves.

use proptest::collection::vec;
use proptest::prelude::*;
use uuid::Uuid;

use super::*;
use crate::domain::exchange::ExchangeRecord;

/// What a generated record borrows from.
#[derive(Debug)]
pub struct Source {
    texts: Vec<String>,
    contents: Vec<Vec<u8>>,
    numbers: Vec<u64>,
    lists: usize,
}

pub fn source() -> impl Strategy<Value = Source> {
    (
        vec(".{0,20}", 40),
        vec(vec(any::<u8>(), 0..200), 3),
        vec(any::<u64>(), 24),
        0usize..4,
    )
        .prop_map(|(texts, contents, numbers, lists)| Source {
            texts,
            contents,
            numbers,
            lists,
        })
}

impl Source {
    /// A record with every field set from the source.
    pub fn exchange(&self) -> ExchangeRecord<'_> {
        let mut texts = self.texts.iter().map(String::as_str).cycle();
        let mut numbers = self.numbers.iter().copied().cycle();
        let mut text = || texts.next().unwrap_or_default();
        let mut n64 = || numbers.next().unwrap_or_default();
        ExchangeRecord {
            exchange_id: Uuid::from_u64_pair(n64(), n64()),
            started_at: n64() as i64,
            node: text(),
            generation: n64(),
            config_hash: text(),
            key_id: text(),
            environment: text(),
            unit: text(),
            user: text(),
            session: text(),
            tags: (0..self.lists).map(|_| (text(), text())).collect(),
            trace_id: text(),
            span_id: text(),
            client_retries: n64() as u16,
            prompt_id: text(),
            version: n64() as u32,
            variant: text(),
            assignment: text(),
            deployment: n64() as u32,
            experiment_id: text(),
            document_ids: (0..self.lists).map(|_| text()).collect(),
            endpoint: text(),
            streaming: n64() % 2 == 0,
            request_model: text(),
            model: text(),
            response_model: text(),
            provider: text(),
            target: text(),
            attempts: (0..self.lists)
                .map(|_| Attempt {
                    target: text(),
                    status: n64() as u16,
                    duration_us: n64(),
                    error: text(),
                })
                .collect(),
            cache_status: text(),
            outcome: text(),
            error_kind: text(),
            error_code: text(),
            status_code: n64() as u16,
            finish_reason: text(),
            response_id: text(),
            upstream_request_id: text(),
            total_us: n64(),
            upstream_us: n64(),
            time_to_first_token_us: n64(),
            overhead_us: n64(),
            queue_us: n64(),
            input_tokens: n64() as u32,
            cached_input_tokens: n64() as u32,
            output_tokens: n64() as u32,
            reasoning_tokens: n64() as u32,
            total_tokens: n64() as u32,
            tokens_estimated: n64() % 2 == 0,
            cost_nanodollars: n64(),
            request_bytes: n64(),
            response_bytes: n64(),
            variables: &self.contents[0],
            request: &self.contents[1],
            response: &self.contents[2],
            variables_truncated: n64() % 2 == 0,
            request_truncated: n64() % 2 == 0,
            response_truncated: n64() % 2 == 0,
            capture: text(),
        }
    }

    fn feedback(&self) -> FeedbackRecord<'_> {
        let text = |i: usize| self.texts[i].as_str();
        FeedbackRecord {
            feedback_id: Uuid::from_u64_pair(self.numbers[0], self.numbers[1]),
            at: self.numbers[2] as i64,
            exchange_id: Uuid::from_u64_pair(self.numbers[3], self.numbers[4]),
            response_id: text(0),
            key_id: text(1),
            name: text(2),
            kind: text(3),
            number: self.numbers[5] as f64 / 7.0,
            text: text(4),
            comment: text(5),
        }
    }
}

/// An exchange row as builds of schema 1 wrote it: without `capture`, and nothing else changed.
pub fn encode_exchange_1(record: &ExchangeRecord<'_>, out: &mut Vec<u8>) {
    encode_exchange(record, out);
    out.truncate(out.len() - 1 - record.capture.len());
}

/// Names of a record's fields, from its `Debug`.
fn field_names(record: &impl std::fmt::Debug) -> Vec<String> {
    let debug = format!("{record:#?}");
    let fields = debug
        .lines()
        .filter(|l| l.starts_with("    ") && !l.starts_with("     "));
    fields
        .filter_map(|l| Some(l.trim().split_once(':')?.0.to_owned()))
        .collect()
}

fn names(columns: &[Column]) -> Vec<&'static str> {
    columns.iter().map(|c| c.name).collect()
}

/// Reads a row as its column types say, as ClickHouse does: what this consumes wholly has the types it claims.
fn walk(columns: &[Column], row: &[u8]) -> Result<(), DecodeError> {
    let mut row = Reader::new(row);
    for column in columns {
        match column.ty.clickhouse() {
            "UUID" => _ = row.uuid()?,
            "DateTime64(6, 'UTC')" => _ = row.i64()?,
            "UInt64" => _ = row.u64()?,
            "UInt32" => _ = row.u32()?,
            "UInt16" => _ = row.u16()?,
            "Float64" => _ = row.f64()?,
            "Bool" => _ = row.bool()?,
            "String" | "LowCardinality(String)" => _ = row.bytes()?,
            "Array(String)" => _ = row.many(Reader::bytes)?,
            "Map(String, String)" => _ = row.many(|r| Ok((r.bytes()?, r.bytes()?)))?,
            "Array(Tuple(target String, status UInt16, duration_us UInt64, error String))" => {
                row.many(|r| Ok((r.bytes()?, r.u16()?, r.u64()?, r.bytes()?)))?;
            }
            other => panic!("no such type: {other}"),
        }
    }
    row.end()
}

#[test]
fn columns_are_the_fields_in_their_order() {
    assert_eq!(names(&EXCHANGE_COLUMNS), field_names(&ExchangeRecord::default()));
    assert_eq!(names(&FEEDBACK_COLUMNS), field_names(&FeedbackRecord::default()));
    assert_eq!(names(&REFUSALS_COLUMNS), field_names(&RefusalsRecord::default()));
}

#[test]
fn columns_of_a_schema_are_a_prefix() {
    assert_eq!(exchange_columns(EXCHANGE_SCHEMA_ID), Some(&EXCHANGE_COLUMNS[..]));
    assert_eq!(exchange_columns(1).map(<[Column]>::len), Some(57));
    assert_eq!(
        (exchange_columns(0), exchange_columns(EXCHANGE_SCHEMA_ID + 1)),
        (None, None)
    );
}

#[test]
fn feedback_row_has_the_bytes_clickhouse_takes() {
    let record = FeedbackRecord {
        feedback_id: Uuid::from_u128(0x0011_2233_4455_6677_8899_aabb_ccdd_eeff),
        at: 1,
        name: "né",
        number: 1.0,
        ..FeedbackRecord::default()
    };
    let mut row = Vec::new();
    encode_feedback(&record, &mut row);
    let wanted = [
        &[
            0x77, 0x66, 0x55, 0x44, 0x33, 0x22, 0x11, 0x00, 0xff, 0xee, 0xdd, 0xcc, 0xbb, 0xaa, 0x99, 0x88,
        ][..],
        &[1, 0, 0, 0, 0, 0, 0, 0],
        &[0; 16],
        &[0, 0, 3, b'n', 0xc3, 0xa9, 0],
        &[0, 0, 0, 0, 0, 0, 0xf0, 0x3f, 0, 0],
    ];
    assert_eq!(row, wanted.concat());
}

#[test]
fn long_string_has_a_leb128_length() {
    let mut out = Vec::new();
    put_str(&mut out, &"x".repeat(300));
    assert_eq!(out[..2], [0xac, 0x02]);
    assert_eq!(Reader::new(&out).str().map(str::len), Ok(300));
    assert_eq!(Reader::new(&[0x80; 12]).count(), Err(DecodeError::Range(9)));
    assert_eq!(Reader::new(&[0xff, 0xff, 0x7f]).strs(), Err(DecodeError::Short(3)));
}

proptest! {
    #[test]
    fn exchange_row_round_trips(source in source()) {
        let record = source.exchange();
        let mut row = Vec::new();
        encode_exchange(&record, &mut row);
        prop_assert_eq!(walk(&EXCHANGE_COLUMNS, &row), Ok(()));
        prop_assert_eq!(decode_exchange(EXCHANGE_SCHEMA_ID, &row), Ok(record));
        prop_assert!(decode_exchange(EXCHANGE_SCHEMA_ID, &row[..row.len() - 1]).is_err());
        row.push(0);
        prop_assert_eq!(decode_exchange(EXCHANGE_SCHEMA_ID, &row), Err(DecodeError::Trailing(1)));
    }

    #[test]
    fn feedback_row_round_trips(source in source()) {
        let record = source.feedback();
        let mut row = Vec::new();
        encode_feedback(&record, &mut row);
        prop_assert_eq!(walk(&FEEDBACK_COLUMNS, &row), Ok(()));
        prop_assert_eq!(decode_feedback(&row), Ok(record));
    }

    #[test]
    fn exchange_row_of_schema_1_decodes_with_defaults(source in source()) {
        let record = ExchangeRecord { capture: "full", ..source.exchange() };
        let mut row = Vec::new();
        encode_exchange_1(&record, &mut row);
        prop_assert_eq!(walk(exchange_columns(1).unwrap(), &row), Ok(()));
        prop_assert_eq!(decode_exchange(1, &row), Ok(record));
        prop_assert!(decode_exchange(EXCHANGE_SCHEMA_ID, &row).is_err());
    }

    #[test]
    fn refusals_row_round_trips(source in source()) {
        let text = |i: usize| source.texts[i].as_str();
        let record = RefusalsRecord {
            refusals_id: Uuid::from_u64_pair(source.numbers[0], source.numbers[1]),
            since: source.numbers[2] as i64,
            until: source.numbers[3] as i64,
            node: text(0),
            key_id: text(1),
            endpoint: text(2),
            error_code: text(3),
            status_code: source.numbers[4] as u16,
            requests: source.numbers[5],
        };
        let mut row = Vec::new();
        encode_refusals(&record, &mut row);
        prop_assert_eq!(walk(&REFUSALS_COLUMNS, &row), Ok(()));
        prop_assert_eq!(decode_refusals(&row), Ok(record));
    }

    #[test]
    fn decoding_any_bytes_never_panics(bytes in vec(any::<u8>(), 0..400)) {
        for schema in 1..=EXCHANGE_SCHEMA_ID {
            let _ = decode_exchange(schema, &bytes);
        }
        let _ = (decode_feedback(&bytes), decode_refusals(&bytes));
    }
}
