//! Rows as JSON, as the control plane and the command line show them.

use serde_json::{Map, Value};

use super::{Column, Type, attempt_value, map_value};
use crate::telemetry::rowbinary::{DecodeError, Reader};
use crate::telemetry::store::{content, time};

/// Reads one row, by its columns.
///
/// # Errors
/// The bytes are not such a row.
pub fn item(row: &mut Reader<'_>, columns: &[Column]) -> Result<Value, DecodeError> {
    let fields = columns
        .iter()
        .map(|column| Ok((column.name.to_owned(), field(row, column)?)));
    fields.collect::<Result<Map<_, _>, _>>().map(Value::Object)
}

fn field(row: &mut Reader<'_>, column: &Column) -> Result<Value, DecodeError> {
    Ok(match column.ty {
        Type::Uuid => row.uuid()?.to_string().into(),
        Type::Time => time(row.i64()?),
        Type::Label | Type::Text => row.str()?.into(),
        Type::Content => content(row.bytes()?),
        Type::U16 => row.u16()?.into(),
        Type::U32 => row.u32()?.into(),
        Type::U64 => row.u64()?.into(),
        Type::F64 => row.f64()?.into(),
        Type::Bool => row.bool()?.into(),
        Type::Map => map_value(&row.map()?),
        Type::Texts => row.strs()?.into(),
        Type::Attempts => row.attempts()?.iter().map(attempt_value).collect(),
    })
}
