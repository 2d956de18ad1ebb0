//! ClickHouse's RowBinary: the primitives, written and read. Pure.
//!
//! ```text
//! UUID                    two u64, little endian: the high half, then the low half
//! DateTime64(6, 'UTC')    i64, little endian: µs since the epoch
//! UInt16/32/64, Float64   little endian
//! Bool                    one byte, 0 or 1
//! String                  LEB128 length, bytes (LowCardinality(String) the same)
//! Array(T), Map(K, V)     LEB128 count, elements (of a map: key, value)
//! Tuple(…)                its elements
//! ```
//!
//! Source: <https://clickhouse.com/docs/interfaces/formats/RowBinary>

use uuid::Uuid;

/// Why bytes are not the row they should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    #[error("row ends at byte {0}, in the middle of a value")]
    Short(usize),
    #[error("row has {0} bytes after its last column")]
    Trailing(usize),
    #[error("string that ends at byte {0} is not UTF-8")]
    Utf8(usize),
    #[error("value before byte {0} is out of range")]
    Range(usize),
}

pub fn put_len(out: &mut Vec<u8>, mut len: usize) {
    while len >= 0x80 {
        out.push(len as u8 | 0x80);
        len >>= 7;
    }
    out.push(len as u8);
}

pub fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_len(out, bytes.len());
    out.extend_from_slice(bytes);
}

pub fn put_str(out: &mut Vec<u8>, text: &str) {
    put_bytes(out, text.as_bytes());
}

pub fn put_uuid(out: &mut Vec<u8>, id: &Uuid) {
    let (high, low) = id.as_u64_pair();
    out.extend_from_slice(&high.to_le_bytes());
    out.extend_from_slice(&low.to_le_bytes());
}

/// Reads values one after another, borrowing strings from the row.
#[derive(Debug)]
pub struct Reader<'a> {
    row: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    pub fn new(row: &'a [u8]) -> Self {
        Self { row, at: 0 }
    }

    /// Whether all is read: for several rows, one after another.
    pub fn is_at_end(&self) -> bool {
        self.at == self.row.len()
    }

    /// Ends the row.
    ///
    /// # Errors
    /// Bytes are left over.
    pub fn end(self) -> Result<(), DecodeError> {
        match self.row.len() - self.at {
            0 => Ok(()),
            left => Err(DecodeError::Trailing(left)),
        }
    }

    fn take(&mut self, len: usize) -> Result<&'a [u8], DecodeError> {
        let end = self.at.checked_add(len).ok_or(DecodeError::Range(self.at))?;
        let taken = self.row.get(self.at..end).ok_or(DecodeError::Short(self.row.len()))?;
        self.at = end;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N)?);
        Ok(array)
    }

    /// A LEB128 length or count.
    pub fn count(&mut self) -> Result<usize, DecodeError> {
        let mut len = 0u64;
        for shift in (0..63).step_by(7) {
            let [byte] = self.array()?;
            len |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return usize::try_from(len).map_err(|_| DecodeError::Range(self.at));
            }
        }
        Err(DecodeError::Range(self.at))
    }

    pub fn bytes(&mut self) -> Result<&'a [u8], DecodeError> {
        let len = self.count()?;
        self.take(len)
    }

    pub fn str(&mut self) -> Result<&'a str, DecodeError> {
        std::str::from_utf8(self.bytes()?).map_err(|_| DecodeError::Utf8(self.at))
    }

    pub fn uuid(&mut self) -> Result<Uuid, DecodeError> {
        let high = self.u64()?;
        Ok(Uuid::from_u64_pair(high, self.u64()?))
    }

    pub fn bool(&mut self) -> Result<bool, DecodeError> {
        match self.array()? {
            [0] => Ok(false),
            [1] => Ok(true),
            _ => Err(DecodeError::Range(self.at)),
        }
    }

    pub fn u16(&mut self) -> Result<u16, DecodeError> {
        self.array().map(u16::from_le_bytes)
    }

    pub fn u32(&mut self) -> Result<u32, DecodeError> {
        self.array().map(u32::from_le_bytes)
    }

    pub fn u64(&mut self) -> Result<u64, DecodeError> {
        self.array().map(u64::from_le_bytes)
    }

    pub fn i64(&mut self) -> Result<i64, DecodeError> {
        self.array().map(i64::from_le_bytes)
    }

    pub fn f64(&mut self) -> Result<f64, DecodeError> {
        self.array().map(f64::from_le_bytes)
    }

    /// A count, then as many elements. Takes no memory on the count's word alone: each element is at least one byte.
    pub fn many<T>(&mut self, mut one: impl FnMut(&mut Self) -> Result<T, DecodeError>) -> Result<Vec<T>, DecodeError> {
        let count = self.count()?;
        if count > self.row.len() - self.at {
            return Err(DecodeError::Short(self.row.len()));
        }
        (0..count).map(|_| one(self)).collect()
    }
}
