//! The exchange row: encoded once on the hot path, decoded in place. Pure.

use super::{CAPTURE_BEFORE, put_attempts, put_map, put_strs};
use crate::domain::exchange::ExchangeRecord;
use crate::telemetry::rowbinary::{DecodeError, Reader, put_bytes, put_str, put_uuid};

/// Appends a record as one RowBinary row.
pub fn encode_exchange(record: &ExchangeRecord<'_>, out: &mut Vec<u8>) {
    // Taken apart whole: a new field does not compile until it is encoded.
    let ExchangeRecord {
        exchange_id,
        started_at,
        node,
        generation,
        config_hash,
        key_id,
        environment,
        unit,
        user,
        session,
        tags,
        trace_id,
        span_id,
        client_retries,
        prompt_id,
        version,
        variant,
        assignment,
        deployment,
        experiment_id,
        document_ids,
        endpoint,
        streaming,
        request_model,
        model,
        response_model,
        provider,
        target,
        attempts,
        cache_status,
        outcome,
        error_kind,
        error_code,
        status_code,
        finish_reason,
        response_id,
        upstream_request_id,
        total_us,
        upstream_us,
        time_to_first_token_us,
        overhead_us,
        queue_us,
        input_tokens,
        cached_input_tokens,
        output_tokens,
        reasoning_tokens,
        total_tokens,
        tokens_estimated,
        cost_nanodollars,
        request_bytes,
        response_bytes,
        variables,
        request,
        response,
        variables_truncated,
        request_truncated,
        response_truncated,
        capture,
    } = record;
    put_uuid(out, exchange_id);
    out.extend_from_slice(&started_at.to_le_bytes());
    put_str(out, node);
    out.extend_from_slice(&generation.to_le_bytes());
    put_str(out, config_hash);
    put_str(out, key_id);
    put_str(out, environment);
    put_str(out, unit);
    put_str(out, user);
    put_str(out, session);
    put_map(out, tags);
    put_str(out, trace_id);
    put_str(out, span_id);
    out.extend_from_slice(&client_retries.to_le_bytes());
    put_str(out, prompt_id);
    out.extend_from_slice(&version.to_le_bytes());
    put_str(out, variant);
    put_str(out, assignment);
    out.extend_from_slice(&deployment.to_le_bytes());
    put_str(out, experiment_id);
    put_strs(out, document_ids);
    put_str(out, endpoint);
    out.push(u8::from(*streaming));
    put_str(out, request_model);
    put_str(out, model);
    put_str(out, response_model);
    put_str(out, provider);
    put_str(out, target);
    put_attempts(out, attempts);
    put_str(out, cache_status);
    put_str(out, outcome);
    put_str(out, error_kind);
    put_str(out, error_code);
    out.extend_from_slice(&status_code.to_le_bytes());
    put_str(out, finish_reason);
    put_str(out, response_id);
    put_str(out, upstream_request_id);
    out.extend_from_slice(&total_us.to_le_bytes());
    out.extend_from_slice(&upstream_us.to_le_bytes());
    out.extend_from_slice(&time_to_first_token_us.to_le_bytes());
    out.extend_from_slice(&overhead_us.to_le_bytes());
    out.extend_from_slice(&queue_us.to_le_bytes());
    out.extend_from_slice(&input_tokens.to_le_bytes());
    out.extend_from_slice(&cached_input_tokens.to_le_bytes());
    out.extend_from_slice(&output_tokens.to_le_bytes());
    out.extend_from_slice(&reasoning_tokens.to_le_bytes());
    out.extend_from_slice(&total_tokens.to_le_bytes());
    out.push(u8::from(*tokens_estimated));
    out.extend_from_slice(&cost_nanodollars.to_le_bytes());
    out.extend_from_slice(&request_bytes.to_le_bytes());
    out.extend_from_slice(&response_bytes.to_le_bytes());
    put_bytes(out, variables);
    put_bytes(out, request);
    put_bytes(out, response);
    out.push(u8::from(*variables_truncated));
    out.push(u8::from(*request_truncated));
    out.push(u8::from(*response_truncated));
    put_str(out, capture);
}

/// Decodes one row of a schema that this build knows, in place; what the schema lacks has its default.
///
/// # Errors
/// The bytes are not one row of exactly the schema's columns.
pub fn decode_exchange(schema: u32, row: &[u8]) -> Result<ExchangeRecord<'_>, DecodeError> {
    let mut row = Reader::new(row);
    let record = ExchangeRecord {
        exchange_id: row.uuid()?,
        started_at: row.i64()?,
        node: row.str()?,
        generation: row.u64()?,
        config_hash: row.str()?,
        key_id: row.str()?,
        environment: row.str()?,
        unit: row.str()?,
        user: row.str()?,
        session: row.str()?,
        tags: row.map()?,
        trace_id: row.str()?,
        span_id: row.str()?,
        client_retries: row.u16()?,
        prompt_id: row.str()?,
        version: row.u32()?,
        variant: row.str()?,
        assignment: row.str()?,
        deployment: row.u32()?,
        experiment_id: row.str()?,
        document_ids: row.strs()?,
        endpoint: row.str()?,
        streaming: row.bool()?,
        request_model: row.str()?,
        model: row.str()?,
        response_model: row.str()?,
        provider: row.str()?,
        target: row.str()?,
        attempts: row.attempts()?,
        cache_status: row.str()?,
        outcome: row.str()?,
        error_kind: row.str()?,
        error_code: row.str()?,
        status_code: row.u16()?,
        finish_reason: row.str()?,
        response_id: row.str()?,
        upstream_request_id: row.str()?,
        total_us: row.u64()?,
        upstream_us: row.u64()?,
        time_to_first_token_us: row.u64()?,
        overhead_us: row.u64()?,
        queue_us: row.u64()?,
        input_tokens: row.u32()?,
        cached_input_tokens: row.u32()?,
        output_tokens: row.u32()?,
        reasoning_tokens: row.u32()?,
        total_tokens: row.u32()?,
        tokens_estimated: row.bool()?,
        cost_nanodollars: row.u64()?,
        request_bytes: row.u64()?,
        response_bytes: row.u64()?,
        variables: row.bytes()?,
        request: row.bytes()?,
        response: row.bytes()?,
        variables_truncated: row.bool()?,
        request_truncated: row.bool()?,
        response_truncated: row.bool()?,
        capture: if schema >= 2 { row.str()? } else { CAPTURE_BEFORE },
    };
    row.end()?;
    Ok(record)
}
