//! Embeddings: unit vectors that depend on the input alone.

use super::{Answer, Controls, Failure, Request, put, put_json};
use crate::mock_provider::text::split_mix;

const DEFAULT_DIMENSIONS: usize = 16;
const MAX_DIMENSIONS: usize = 4096;
const MAX_INPUTS: usize = 2048;

pub(super) fn answer(request: &Request<'_>, controls: &Controls) -> Result<Answer, Failure> {
    let input = request.input()?;
    let dimensions = request.dimensions.unwrap_or(DEFAULT_DIMENSIONS);
    if !(1..=MAX_DIMENSIONS).contains(&dimensions) {
        return Err(Failure::invalid(
            "dimensions",
            "invalid 'dimensions': expected 1 to 4096",
        ));
    }
    let inputs = input.elements.unwrap_or(1);
    if inputs > MAX_INPUTS {
        return Err(Failure::invalid("input", "invalid 'input': more than 2048 elements"));
    }
    let base64 = match request.encoding_format.as_deref() {
        None | Some("float") => false,
        Some("base64") => true,
        Some(_) => {
            return Err(Failure::invalid("encoding_format", "expected 'float' or 'base64'"));
        }
    };
    let mut out = Vec::with_capacity(256 + inputs * (64 + dimensions * 14));
    put(&mut out, r#"{"object":"list","data":["#);
    for index in 0..inputs {
        put(&mut out, if index == 0 { "" } else { "," });
        put(&mut out, r#"{"object":"embedding","index":"#);
        put_json(&mut out, &index);
        put(&mut out, r#","embedding":"#);
        let vector = unit_vector(input.seed_of(0, controls).wrapping_add(index as u64), dimensions);
        if base64 {
            put_base64(&mut out, &vector)
        } else {
            put_json(&mut out, &vector)
        }
        put(&mut out, "}");
    }
    put(&mut out, r#"],"model":"#);
    put_json(&mut out, request.model_name());
    if !controls.no_usage {
        put(&mut out, r#","usage":{"prompt_tokens":"#);
        put_json(&mut out, &input.tokens);
        put(&mut out, r#","total_tokens":"#);
        put_json(&mut out, &input.tokens);
        put(&mut out, "}");
    }
    put(&mut out, "}");
    Ok(Answer::Plain(out))
}

fn unit_vector(seed: u64, dimensions: usize) -> Vec<f32> {
    let random = |dimension| split_mix(split_mix(seed).wrapping_add(dimension as u64)) as i32 as f32;
    let vector: Vec<f32> = (0..dimensions).map(random).collect();
    let length = vector
        .iter()
        .map(|x| f64::from(*x).powi(2))
        .sum::<f64>()
        .sqrt()
        .max(1.0);
    vector.into_iter().map(|x| (f64::from(x) / length) as f32).collect()
}

/// Appends little-endian floats in base64, which OpenAI's SDKs ask for unless told otherwise.
fn put_base64(out: &mut Vec<u8>, vector: &[f32]) {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let bytes: Vec<u8> = vector.iter().flat_map(|x| x.to_le_bytes()).collect();
    out.push(b'"');
    for group in bytes.chunks(3) {
        let bits = group.iter().fold(0, |bits, byte| bits << 8 | u32::from(*byte)) << (8 * (3 - group.len()));
        for position in 0..4 {
            let digit = ALPHABET[(bits >> (18 - 6 * position)) as usize & 63];
            out.push(if position <= group.len() { digit } else { b'=' });
        }
    }
    out.push(b'"');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_has_the_bits_and_the_padding() {
        let mut out = Vec::new();
        put_base64(&mut out, &[1.0, -2.5]);
        // python3: base64.b64encode(struct.pack("<ff", 1.0, -2.5))
        assert_eq!(str::from_utf8(&out).unwrap(), r#""AACAPwAAIMA=""#);
    }

    #[test]
    fn vectors_have_length_one_and_depend_on_the_seed() {
        let vector = unit_vector(1, 64);
        let length: f32 = vector.iter().map(|x| x * x).sum();
        assert!((length - 1.0).abs() < 1e-5, "{length}");
        assert_ne!(vector, unit_vector(2, 64));
    }
}
