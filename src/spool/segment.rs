//! One segment file: opened, appended to, sealed, read back. The only place that knows where segments lie.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::format::{HEADER_LEN, Header, SEAL_AT, Seal, encode_header, encode_seal};
use super::pool::Pool;

/// A segment nothing is added to any more; one batch for the sink.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sealed {
    pub path: PathBuf,
    pub boot: String,
    pub worker: u32,
    pub sequence: u64,
    pub frames: u32,
    /// Bytes of frames, without the header.
    pub bytes: u64,
    pub schema: u32,
    /// When it was begun, µs since the epoch.
    pub created_at: i64,
}

impl Sealed {
    pub(super) fn new(path: PathBuf, header: &Header, seal: Seal) -> Self {
        Self {
            path,
            boot: header.boot.clone(),
            worker: header.worker,
            sequence: header.sequence,
            frames: seal.frames,
            bytes: seal.payload_bytes,
            schema: header.schema,
            created_at: header.created_at,
        }
    }

    /// Names the batch: `boot/worker-sequence`. The same bytes have the same token for ever.
    pub fn token(&self) -> String {
        format!("{}/{}-{}", self.boot, self.worker, self.sequence)
    }

    /// Bytes of the file that matter: header and frames.
    pub fn file_bytes(&self) -> u64 {
        HEADER_LEN as u64 + self.bytes
    }

    /// Reads header and frames, for [`recover`](super::recover::recover); of a file that was cut short, what is left.
    /// Blocks.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn read(&self) -> io::Result<Vec<u8>> {
        let file = File::open(&self.path)?;
        let len = self.file_bytes().min(file.metadata()?.len());
        let mut bytes = vec![0; usize::try_from(len).map_err(io::Error::other)?];
        file.read_exact_at(&mut bytes, 0)?;
        Ok(bytes)
    }

    /// Gives the preallocated rest of the file back to the file system. Blocks.
    ///
    /// # Errors
    /// The file cannot be opened or cut.
    pub fn trim(&self) -> io::Result<()> {
        OpenOptions::new()
            .write(true)
            .open(&self.path)?
            .set_len(self.file_bytes())
    }
}

/// The segment a worker writes to.
#[derive(Debug)]
pub struct Segment {
    file: Arc<File>,
    path: PathBuf,
    header: Header,
    /// Bytes the file has room for, header included.
    capacity: u64,
    seal: Seal,
}

impl Segment {
    /// Turns a spare into a segment: the header is written first, then the file gets its name, so that a file in a
    /// boot folder always has the header of its present use.
    ///
    /// # Errors
    /// There is no spare and none can be created, or the file cannot be written or renamed.
    pub fn open(pool: &Pool, folder: &Path, capacity: u64, header: Header) -> io::Result<Self> {
        let spare = pool.take()?;
        let path = segment_path(folder, header.worker, header.sequence);
        spare.file.write_all_at(&encode_header(&header), 0)?;
        let seal = Seal {
            frames: 0,
            payload_bytes: 0,
        };
        match fs::rename(&spare.path, &path) {
            Ok(()) => {
                return Ok(Self {
                    file: Arc::new(spare.file),
                    path,
                    header,
                    capacity,
                    seal,
                });
            }
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            Err(_) => fs::create_dir_all(folder)?,
        }
        // The folder was gone, perhaps the spare as well; nothing is lost by taking another one.
        let spare = if spare.path.exists() { spare } else { pool.take_new()? };
        spare.file.write_all_at(&encode_header(&header), 0)?;
        fs::rename(&spare.path, &path)?;
        Ok(Self {
            file: Arc::new(spare.file),
            path,
            header,
            capacity,
            seal,
        })
    }

    pub fn file(&self) -> &Arc<File> {
        &self.file
    }

    pub fn header(&self) -> &Header {
        &self.header
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn frames(&self) -> u32 {
        self.seal.frames
    }

    /// Bytes of frames that still fit.
    pub fn space(&self) -> usize {
        let left = self
            .capacity
            .saturating_sub(HEADER_LEN as u64 + self.seal.payload_bytes);
        usize::try_from(left).unwrap_or(usize::MAX)
    }

    /// Appends stamped frames with one `pwrite`.
    ///
    /// # Errors
    /// They could not be written whole; the segment still ends where it did.
    pub fn write(&mut self, frames: &[u8], count: u32) -> io::Result<()> {
        self.file
            .write_all_at(frames, HEADER_LEN as u64 + self.seal.payload_bytes)?;
        self.seal.payload_bytes += frames.len() as u64;
        self.seal.frames += count;
        Ok(())
    }

    /// Writes the seal. The descriptor is right even if that fails, since it carries the same figures.
    pub fn seal(self) -> (Sealed, io::Result<()>) {
        let written = self
            .file
            .write_all_at(&encode_seal(self.seal, self.header.salt), SEAL_AT as u64);
        (Sealed::new(self.path, &self.header, self.seal), written)
    }
}

pub fn segment_path(folder: &Path, worker: u32, sequence: u64) -> PathBuf {
    folder.join(format!("{worker}-{sequence:08}.seg"))
}
