//! The bytes of a snapshot file: a mapping of a plain file, a buffer for a gzip or zstd one.
//!
//! It reads whole files and nothing else: no parsing, no writing. The mapping is why this file alone of
//! `heap` contains an unsafe call: a buffer would double the memory of the gigabyte files that matter
//! most, and this code runs in the command line's own process, never in the guarded app.

use std::fs::File;
use std::io::Read;
use std::ops::Deref;
use std::path::Path;

use super::error::Error;

/// The first bytes of a gzip member (RFC 1952).
const GZIP_MAGIC: [u8; 2] = [0x1f, 0x8b];
/// The first bytes of a zstd frame (RFC 8878).
const ZSTD_MAGIC: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];
/// How much is decompressed between two looks at the budget.
const CHUNK: usize = 1 << 20;

/// The decompressed text of a snapshot.
#[derive(Debug)]
pub enum Bytes {
    /// A mapping of a plain file.
    Mapped(memmap2::Mmap),
    /// A decompressed buffer.
    Owned(Vec<u8>),
}

impl Deref for Bytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Self::Mapped(map) => map,
            Self::Owned(buffer) => buffer,
        }
    }
}

/// What [`open`] found.
#[derive(Debug)]
pub struct Opened {
    /// The text.
    pub bytes: Bytes,
    /// True when a compressed stream ended early or is damaged: the text is what came before.
    pub damaged: bool,
}

/// Opens a plain, gzip or zstd file, told apart by its first bytes.
///
/// A compressed file may take at most `allowed_bytes` when decompressed; a plain file takes none, since it
/// is mapped.
///
/// # Errors
/// [`Error::Io`] when the file cannot be read, [`Error::TooLarge`] when it does not fit.
pub fn open(path: &Path, allowed_bytes: u64) -> Result<Opened, Error> {
    let io = |source| Error::Io { file: path.to_path_buf(), source };
    let mut file = File::open(path).map_err(io)?;
    let mut magic = [0; 4];
    let mut filled = 0;
    while filled < magic.len() {
        match file.read(&mut magic[filled..]).map_err(io)? {
            0 => break,
            count => filled += count,
        }
    }
    let head = &magic[..filled];
    if head.starts_with(&GZIP_MAGIC) {
        let file = File::open(path).map_err(io)?;
        return inflate(flate2::read::MultiGzDecoder::new(file), allowed_bytes);
    }
    if head.starts_with(&ZSTD_MAGIC) {
        let file = File::open(path).map_err(io)?;
        return inflate(zstd::stream::read::Decoder::new(file).map_err(io)?, allowed_bytes);
    }
    if filled == 0 {
        return Ok(Opened { bytes: Bytes::Owned(Vec::new()), damaged: false });
    }
    Ok(Opened { bytes: Bytes::Mapped(map(&file).map_err(io)?), damaged: false })
}

/// The first bytes of the decompressed text, at most `most`.
///
/// # Errors
/// [`Error::Io`] when the file cannot be read.
pub fn head(path: &Path, most: u64) -> Result<Vec<u8>, Error> {
    let io = |source| Error::Io { file: path.to_path_buf(), source };
    let mut raw = Vec::new();
    File::open(path).and_then(|file| file.take(most).read_to_end(&mut raw)).map_err(io)?;
    let mut text = Vec::new();
    // A stream that breaks off, as this cut one must, gives what it gave so far.
    if raw.starts_with(&GZIP_MAGIC) {
        let _ = flate2::read::MultiGzDecoder::new(raw.as_slice()).take(most).read_to_end(&mut text);
    } else if raw.starts_with(&ZSTD_MAGIC) {
        let stream = zstd::stream::read::Decoder::new(raw.as_slice()).map_err(io)?;
        let _ = stream.take(most).read_to_end(&mut text);
    } else {
        text = raw;
    }
    Ok(text)
}

/// Decompresses all of `input`. A stream that breaks off gives what it gave so far.
fn inflate(mut input: impl Read, allowed_bytes: u64) -> Result<Opened, Error> {
    let mut buffer = Vec::new();
    loop {
        let before = buffer.len();
        buffer.reserve(CHUNK);
        let result = (&mut input).take(CHUNK as u64).read_to_end(&mut buffer);
        if buffer.len() as u64 > allowed_bytes {
            return Err(Error::TooLarge { needed: buffer.len() as u64, allowed: allowed_bytes });
        }
        match result {
            Err(_) => return Ok(Opened { bytes: Bytes::Owned(buffer), damaged: true }),
            Ok(_) if buffer.len() == before => {
                buffer.shrink_to_fit();
                return Ok(Opened { bytes: Bytes::Owned(buffer), damaged: false });
            }
            Ok(_) => {}
        }
    }
}

#[allow(unsafe_code)]
fn map(file: &File) -> std::io::Result<memmap2::Mmap> {
    // SAFETY: the mapping is private and read-only. Should another process shorten the file meanwhile,
    // a read past its new end raises SIGBUS, which ends this process (the command line, which holds
    // nothing but this snapshot); bytes changed in place are read as any other hostile bytes: every
    // check of the parser is made on the copy it keeps, and string reads are bounded by the mapping.
    unsafe { memmap2::Mmap::map(file) }
}
