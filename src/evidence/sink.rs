//! The one way of a snapshot to disk: a native thread reads it from a pipe, lets a filter redact it,
//! hashes and checks it, compresses it, writes it under a temporary name and, only if it is whole,
//! gives it its final name and its metadata. Memory is bounded: a few fixed buffers.
//!
//! It does not decide (see `budget`), does not judge what is in the snapshot, and never stops reading: after
//! a full disk, an exceeded size or any other failure it drains the pipe to its end, so that the writer
//! neither blocks nor meets a broken pipe. Closing the write end is what ends the thread.

use std::fmt;
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use crossbeam_channel::Sender;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::budget::{Allowance, Mode, SnapshotReason, size};
use super::complete::{Completeness, Incomplete};
use super::name::{Compression, EvidenceName, Kind, WallMillis};
use super::store::{FLUSH_UP_TO_BYTES, Part, Store, StoreError};
use crate::probe::own;

/// Schema of `Snapshot.….meta`.
pub const META_SCHEMA: u32 = 1;

/// One read of the pipe. As large as the pipe, so that one wake empties it.
const READ_BYTES: usize = 256 << 10;
/// What the pipe is asked to hold: V8 hands out chunks of 64 KiB, and an inline snapshot waits for us.
#[cfg(target_os = "linux")]
const PIPE_BYTES: usize = 1 << 20;
/// gzip level: 6 costs three times as much CPU for a tenth of the size.
const GZIP_LEVEL: u32 = 1;
/// zstd level: measured 11.6 x smaller in 0.5 s for 225 MB (and 9.2 x for 21 MB); 3 was slower and no smaller, the "fast" level -1
/// 8.1 x and 6.5 x.
const ZSTD_LEVEL: i32 = 1;
/// By how much room is made at a time when a file outgrows its prediction.
const ROOM_STEP_BYTES: u64 = 16 << 20;

/// A stage between the reader and everything that follows: redaction. Digest, completeness and disk see
/// only what it puts out.
pub trait Filter: Send {
    /// Takes the next bytes and appends what is ready to `out`.
    ///
    /// # Errors
    /// One sentence; the snapshot is given up.
    fn push(&mut self, input: &[u8], out: &mut Vec<u8>) -> Result<(), String>;

    /// The input has ended: appends the rest.
    ///
    /// # Errors
    /// What is wrong, in words, if it ended in the middle.
    fn finish(&mut self, out: &mut Vec<u8>) -> Result<(), String>;
}

/// What is known of a snapshot before it is written.
#[derive(Clone, Debug)]
pub struct SnapshotFacts {
    /// How it is taken.
    pub mode: Mode,
    /// Why.
    pub reason: SnapshotReason,
    /// What the caller of `leakguard.snapshot({ reason })` said; cut to 1000 characters.
    pub note: Option<String>,
    /// Shared by the snapshots of one process that are to be compared.
    pub pair_id: Option<String>,
    /// Node's thread id of the isolate; 0 is the main thread.
    pub tid: u64,
    /// `process.version`.
    pub node_version: String,
    /// Live heap before, bytes.
    pub heap_bytes: u64,
    /// `LEAKGUARD_REDACT` as applied: `none`, `strings`, `keys`.
    pub redaction: String,
}

/// What the sink is to do.
pub struct SinkJob {
    /// Goes into the metadata.
    pub facts: SnapshotFacts,
    /// How the file is packed.
    pub compression: Compression,
    /// Room that was already made for it, bytes.
    pub predicted_file_bytes: u64,
    /// Beyond this it is thrown away, bytes on disk.
    pub max_file_bytes: u64,
    /// Redaction, if any.
    pub filter: Option<Box<dyn Filter>>,
}

impl SinkJob {
    /// A job within an allowance, without a filter.
    #[must_use]
    pub fn new(facts: SnapshotFacts, compression: Compression, allowance: &Allowance) -> Self {
        Self {
            facts,
            compression,
            predicted_file_bytes: allowance.predicted_file_bytes,
            max_file_bytes: allowance.max_file_bytes,
            filter: None,
        }
    }
}

impl fmt::Debug for SinkJob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SinkJob")
            .field("facts", &self.facts)
            .field("compression", &self.compression)
            .field("max_file_bytes", &self.max_file_bytes)
            .field("filter", &self.filter.is_some())
            .finish_non_exhaustive()
    }
}

/// `Snapshot.….meta`: JSON beside a snapshot of the same stem. Times are RFC 3339, UTC.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotMeta {
    /// [`META_SCHEMA`].
    pub schema: u32,
    /// The snapshot's file name.
    pub file: String,
    /// Always true: an incomplete snapshot gets neither name nor metadata.
    pub complete: bool,
    /// SHA-256 of the uncompressed bytes, after redaction; lower-case hex.
    pub sha256: String,
    /// Uncompressed size, bytes.
    pub bytes: u64,
    /// Size on disk, bytes.
    pub file_bytes: u64,
    /// How it is packed.
    pub compression: Compression,
    /// How it was taken.
    pub mode: Mode,
    /// Why.
    pub reason: SnapshotReason,
    /// What the caller said.
    pub note: Option<String>,
    /// Shared by snapshots that are to be compared.
    pub pair_id: Option<String>,
    /// Whether node ids may be compared within the pair. Ids of forked snapshots are reused.
    pub node_ids_comparable: bool,
    /// Process.
    pub pid: u32,
    /// Node's thread id.
    pub tid: u64,
    /// `process.version`.
    pub node_version: String,
    /// Live heap before, bytes.
    pub heap_bytes: u64,
    /// `none`, `strings`, `keys`.
    pub redaction: String,
    /// When the sink began.
    pub started: String,
    /// When the last byte had come.
    pub ended: String,
}

/// A whole snapshot on disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnapshotFile {
    /// Its name.
    pub name: EvidenceName,
    /// Its path.
    pub path: PathBuf,
    /// Its metadata.
    pub meta: SnapshotMeta,
    /// Why the metadata could not be put beside it, if so.
    pub meta_error: Option<String>,
}

/// Why no snapshot came of it.
#[derive(Debug)]
pub enum SinkError {
    /// What came is not a whole snapshot.
    Incomplete {
        /// What is wrong, in words.
        problem: String,
        /// Bytes that came.
        bytes: u64,
    },
    /// It outgrew what it was allowed.
    TooLarge {
        /// The limit, bytes on disk.
        max_bytes: u64,
    },
    /// Writing failed: full disk, quota, anything.
    Store(StoreError),
    /// Reading the pipe failed.
    Read(io::Error),
    /// The filter gave up.
    Filter(String),
    /// [`SinkHandle::discard`] was called.
    Discarded,
    /// A bug of ours: the thread panicked. Nothing is left under a final name.
    Panicked,
}

impl From<StoreError> for SinkError {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl fmt::Display for SinkError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Incomplete { problem, bytes } => {
                write!(f, "the snapshot is not whole: {problem}, after {}", size(*bytes))
            }
            Self::TooLarge { max_bytes } => write!(
                f,
                "the snapshot outgrew the {} it was allowed on disk, and was thrown away",
                size(*max_bytes)
            ),
            Self::Store(error) => error.fmt(f),
            Self::Read(error) => write!(f, "cannot read the snapshot: {error}"),
            Self::Filter(problem) => write!(f, "redaction failed: {problem}"),
            Self::Discarded => f.write_str("the snapshot was given up"),
            Self::Panicked => f.write_str("the sink failed"),
        }
    }
}

impl std::error::Error for SinkError {}

/// What came of one job; sent once, whatever happens.
#[derive(Debug)]
pub struct SinkReport {
    /// The file, or why there is none.
    pub result: Result<SnapshotFile, SinkError>,
    /// Bytes that came through the pipe.
    pub bytes_read: u64,
}

/// A running sink.
#[derive(Debug)]
pub struct SinkHandle {
    thread: JoinHandle<()>,
    discard: Arc<AtomicBool>,
}

impl SinkHandle {
    /// Gives the snapshot up: what still comes is read and thrown away, and no file appears.
    pub fn discard(&self) {
        self.discard.store(true, Ordering::Relaxed);
    }

    /// Waits for the end of the thread; it ends when the last write end of the pipe is closed.
    pub fn join(self) {
        // The thread catches its own panics; there is nothing more to learn here.
        let _ = self.thread.join();
    }
}

/// A pipe for a snapshot: read end, write end. Both close on exec.
///
/// # Errors
/// If the process has no descriptors left.
#[cfg(unix)]
pub fn pipe() -> io::Result<(File, File)> {
    #[cfg(target_os = "linux")]
    {
        let (read, write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
        // Refused beyond a user's allowance of pipe memory; then it stays at 64 KiB.
        let _ = rustix::pipe::fcntl_setpipe_size(&write, PIPE_BYTES);
        Ok((File::from(read), File::from(write)))
    }
    #[cfg(not(target_os = "linux"))]
    {
        let (read, write) = io::pipe()?;
        Ok((
            File::from(std::os::fd::OwnedFd::from(read)),
            File::from(std::os::fd::OwnedFd::from(write)),
        ))
    }
}

/// A pipe for a snapshot: read end, write end.
///
/// # Errors
/// If the process has no handles left.
#[cfg(windows)]
pub fn pipe() -> io::Result<(File, File)> {
    let (read, write) = io::pipe()?;
    Ok((
        File::from(std::os::windows::io::OwnedHandle::from(read)),
        File::from(std::os::windows::io::OwnedHandle::from(write)),
    ))
}

/// Starts a sink on the read end of a pipe. The caller closes its write end when the snapshot is written.
///
/// # Errors
/// If the thread cannot be started; the read end is closed then, so do this before writing.
pub fn spawn(
    store: Arc<Store>,
    input: File,
    job: SinkJob,
    report: Sender<SinkReport>,
) -> io::Result<SinkHandle> {
    // Counted from now on, not from when the thread gets to run.
    let counted = own::fd();
    start(report, move |discard| {
        let _own = counted;
        Sink::new(&store, job, discard).run(input)
    })
}

/// Takes over a snapshot that V8 has written to a path, where a process cannot name its own pipe. Ask
/// [`begin_file`] for the path. Unless it is compressed or redacted it is not copied.
///
/// # Errors
/// If the thread cannot be started; the part is removed then.
pub fn adopt(
    store: Arc<Store>,
    written: Part,
    job: SinkJob,
    report: Sender<SinkReport>,
) -> io::Result<SinkHandle> {
    start(report, move |discard| Sink::new(&store, job, discard).adopt(written))
}

/// An empty part for V8 to write to; see [`adopt`].
///
/// # Errors
/// If it cannot be created.
pub fn begin_file(store: &Store) -> Result<Part, StoreError> {
    store.part("heapsnapshot")
}

fn start(
    report: Sender<SinkReport>,
    run: impl FnOnce(&AtomicBool) -> SinkReport + Send + 'static,
) -> io::Result<SinkHandle> {
    let discard = Arc::new(AtomicBool::new(false));
    let flag = Arc::clone(&discard);
    let thread =
        std::thread::Builder::new().name("leakguard-sink".to_owned()).spawn(move || {
            let _own = own::thread();
            let outcome = run(&flag);
            // Nobody waits for it any more: the guard was stopped.
            let _ = report.send(outcome);
        })?;
    Ok(SinkHandle { thread, discard })
}

/// A bug in a filter must neither abort the app nor leave its writer blocked.
fn no_panic(
    work: impl FnOnce() -> Result<SnapshotFile, SinkError>,
) -> Result<SnapshotFile, SinkError> {
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(work)).unwrap_or(Err(SinkError::Panicked))
}

struct Sink<'a> {
    store: &'a Store,
    job: SinkJob,
    discard: &'a AtomicBool,
    started: WallMillis,
    bytes_read: u64,
}

impl<'a> Sink<'a> {
    fn new(store: &'a Store, job: SinkJob, discard: &'a AtomicBool) -> Self {
        Self { store, job, discard, started: WallMillis::now(), bytes_read: 0 }
    }

    fn run(mut self, mut input: File) -> SinkReport {
        let result = no_panic(|| self.stream(&mut input));
        if result.is_err() {
            self.drain(&mut input);
        }
        drop(input);
        SinkReport { result, bytes_read: self.bytes_read }
    }

    fn adopt(mut self, written: Part) -> SinkReport {
        let copy = self.job.compression != Compression::None || self.job.filter.is_some();
        let result = no_panic(|| {
            let mut input = reopen(&written)?;
            if copy { self.stream(&mut input) } else { self.check(&mut input, written) }
        });
        SinkReport { result, bytes_read: self.bytes_read }
    }

    /// Reads to the end, through filter, digest and compression into a part, and gives that its name.
    fn stream(&mut self, input: &mut File) -> Result<SnapshotFile, SinkError> {
        let part = self.store.part("heapsnapshot")?;
        let _own = own::fd();
        let target = Bounded {
            part,
            store: self.store,
            written: 0,
            room: self.job.predicted_file_bytes,
            max_bytes: self.job.max_file_bytes,
            failure: None,
        };
        let mut filter = self.job.filter.take();
        let mut filtered = Vec::new();
        let mut frame = Frame::new();
        let mut packer = Packer::new(self.job.compression, target)?;
        self.read_all(input, |bytes| {
            let bytes = match &mut filter {
                None => bytes,
                Some(filter) => {
                    filtered.clear();
                    filter.push(bytes, &mut filtered).map_err(SinkError::Filter)?;
                    &filtered
                }
            };
            frame.push(bytes);
            packer.write(bytes)
        })?;
        if let Some(mut filter) = filter {
            filtered.clear();
            let cut = |problem| SinkError::Incomplete { problem, bytes: self.bytes_read };
            filter.finish(&mut filtered).map_err(cut)?;
            frame.push(&filtered);
            packer.write(&filtered)?;
        }
        let (sha256, bytes) = frame.finish()?;
        let target = packer.finish()?;
        self.commit(target.part, target.written, sha256, bytes)
    }

    /// Reads what V8 has written already; the part itself becomes the snapshot.
    fn check(&mut self, input: &mut File, written: Part) -> Result<SnapshotFile, SinkError> {
        let mut frame = Frame::new();
        let max_bytes = self.job.max_file_bytes;
        let mut read = 0_u64;
        self.read_all(input, |bytes| {
            read += bytes.len() as u64;
            if read > max_bytes {
                return Err(SinkError::TooLarge { max_bytes });
            }
            frame.push(bytes);
            Ok(())
        })?;
        let (sha256, bytes) = frame.finish()?;
        self.store.make_room(0)?;
        self.commit(written, bytes, sha256, bytes)
    }

    fn read_all(
        &mut self,
        input: &mut File,
        mut each: impl FnMut(&[u8]) -> Result<(), SinkError>,
    ) -> Result<(), SinkError> {
        let mut buffer = vec![0; READ_BYTES];
        loop {
            let n = match input.read(&mut buffer) {
                Ok(0) => return Ok(()),
                Ok(n) => n,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(SinkError::Read(error)),
            };
            self.bytes_read += n as u64;
            if self.discard.load(Ordering::Relaxed) {
                return Err(SinkError::Discarded);
            }
            each(buffer.get(..n).unwrap_or_default())?;
        }
    }

    fn drain(&mut self, input: &mut File) {
        let mut buffer = vec![0; READ_BYTES];
        loop {
            match input.read(&mut buffer) {
                Ok(0) => return,
                Ok(n) => self.bytes_read += n as u64,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return,
            }
        }
    }

    fn commit(
        &self,
        part: Part,
        file_bytes: u64,
        sha256: String,
        bytes: u64,
    ) -> Result<SnapshotFile, SinkError> {
        if self.discard.load(Ordering::Relaxed) {
            return Err(SinkError::Discarded);
        }
        if file_bytes <= FLUSH_UP_TO_BYTES {
            part.file.sync_data().map_err(StoreError::io("flush", "the snapshot"))?;
        }
        let ended = WallMillis::now();
        let facts = &self.job.facts;
        let kind = Kind::Snapshot(self.job.compression);
        let next = || EvidenceName::next(kind, self.started, facts.tid);
        let name = self.store.commit_under_free_name(next(), part, |_| next())?;
        let meta = SnapshotMeta {
            schema: META_SCHEMA,
            file: name.to_string(),
            complete: true,
            sha256,
            bytes,
            file_bytes,
            compression: self.job.compression,
            mode: facts.mode,
            reason: facts.reason,
            note: facts.note.as_ref().map(|note| note.chars().take(1000).collect()),
            pair_id: facts.pair_id.clone(),
            node_ids_comparable: facts.mode == Mode::Inline,
            pid: std::process::id(),
            tid: facts.tid,
            node_version: facts.node_version.clone(),
            heap_bytes: facts.heap_bytes,
            redaction: facts.redaction.clone(),
            started: self.started.rfc3339(),
            ended: ended.rfc3339(),
        };
        // A snapshot without its metadata is still evidence: it stays.
        let meta_error = serde_json::to_vec_pretty(&meta)
            .map_err(|error| error.to_string())
            .and_then(|text| {
                self.store
                    .write_named(&name.with_kind(Kind::Meta), &text)
                    .map_err(|error| error.to_string())
            })
            .err();
        Ok(SnapshotFile { path: self.store.path_of(&name), name, meta, meta_error })
    }
}

/// V8 wrote by path; its own descriptor is closed, and ours stands at the beginning.
fn reopen(written: &Part) -> Result<File, SinkError> {
    written.file.try_clone().map_err(SinkError::Read)
}

/// Digest, length and completeness of the uncompressed bytes.
struct Frame {
    digest: Sha256,
    check: Completeness,
    bytes: u64,
}

impl Frame {
    fn new() -> Self {
        Self { digest: Sha256::new(), check: Completeness::new(), bytes: 0 }
    }

    fn push(&mut self, bytes: &[u8]) {
        self.digest.update(bytes);
        self.check.push(bytes);
        self.bytes += bytes.len() as u64;
    }

    fn finish(self) -> Result<(String, u64), SinkError> {
        let bytes = self.bytes;
        self.check.finish().map_err(|problem| {
            let problem = match problem {
                Incomplete::Empty => "nothing came".to_owned(),
                Incomplete::NotASnapshot => "it does not begin like a snapshot".to_owned(),
                Incomplete::Malformed { offset } => {
                    format!("a bracket closes what was not open at byte {offset}")
                }
                Incomplete::Truncated { .. } => "it ends in the middle".to_owned(),
                Incomplete::NoStrings => "it has no strings".to_owned(),
                Incomplete::Trailing { offset } => {
                    format!("something follows its end at byte {offset}")
                }
            };
            SinkError::Incomplete { problem, bytes }
        })?;
        let hex = self.digest.finalize().iter().fold(String::new(), |mut hex, byte| {
            use fmt::Write as _;
            let _ = write!(hex, "{byte:02x}");
            hex
        });
        Ok((hex, bytes))
    }
}

/// A part that may not outgrow its allowance, and makes room in the quota as it outgrows its prediction.
struct Bounded<'a> {
    part: Part,
    store: &'a Store,
    written: u64,
    /// Up to this size room has been made.
    room: u64,
    max_bytes: u64,
    /// The compressors hand on an `io::Error`; this is what it was.
    failure: Option<SinkError>,
}

impl Bounded<'_> {
    fn fail(&mut self, failure: SinkError) -> io::Error {
        self.failure = Some(failure);
        io::Error::other("see Bounded::failure")
    }
}

impl Write for Bounded<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let after = self.written.saturating_add(bytes.len() as u64);
        if after > self.max_bytes {
            let max_bytes = self.max_bytes;
            return Err(self.fail(SinkError::TooLarge { max_bytes }));
        }
        if after > self.room {
            // What is written already counts as used: the part lies in the directory.
            let step = ROOM_STEP_BYTES.max(bytes.len() as u64);
            // The last step may not fit whole; then it must fit exactly.
            let made = match self.store.make_room(step) {
                Ok(_) => Ok(step),
                Err(_) => self.store.make_room(bytes.len() as u64).map(|_| bytes.len() as u64),
            };
            match made {
                Ok(step) => self.room = self.written.saturating_add(step),
                Err(error) => return Err(self.fail(SinkError::Store(error))),
            }
        }
        match self.part.file.write(bytes) {
            Ok(n) => {
                self.written += n as u64;
                Ok(n)
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Err(error),
            Err(error) => {
                let error = self.store.with_free(StoreError::io("write", "the snapshot")(error));
                Err(self.fail(SinkError::Store(error)))
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The compression stage.
enum Packer<'a> {
    None(Bounded<'a>),
    Gzip(flate2::write::GzEncoder<Bounded<'a>>),
    Zstd(zstd::stream::write::Encoder<'static, Bounded<'a>>),
}

impl<'a> Packer<'a> {
    fn new(compression: Compression, target: Bounded<'a>) -> Result<Self, SinkError> {
        Ok(match compression {
            Compression::None => Self::None(target),
            Compression::Gzip => Self::Gzip(flate2::write::GzEncoder::new(
                target,
                flate2::Compression::new(GZIP_LEVEL),
            )),
            Compression::Zstd => {
                let mut encoder = zstd::stream::write::Encoder::new(target, ZSTD_LEVEL)
                    .map_err(StoreError::io("compress", "the snapshot"))?;
                encoder
                    .include_checksum(true)
                    .map_err(StoreError::io("compress", "the snapshot"))?;
                Self::Zstd(encoder)
            }
        })
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), SinkError> {
        let written = match self {
            Self::None(target) => target.write_all(bytes),
            Self::Gzip(encoder) => encoder.write_all(bytes),
            Self::Zstd(encoder) => encoder.write_all(bytes),
        };
        written.map_err(|error| {
            let target = match self {
                Self::None(target) => target,
                Self::Gzip(encoder) => encoder.get_mut(),
                Self::Zstd(encoder) => encoder.get_mut(),
            };
            target.failure.take().unwrap_or_else(|| {
                SinkError::Store(StoreError::io("compress", "the snapshot")(error))
            })
        })
    }

    fn finish(self) -> Result<Bounded<'a>, SinkError> {
        match self {
            Self::None(target) => Ok(target),
            Self::Gzip(mut encoder) => {
                encoder.try_finish().map_err(|error| {
                    encoder.get_mut().failure.take().unwrap_or_else(|| {
                        SinkError::Store(StoreError::io("compress", "the snapshot")(error))
                    })
                })?;
                encoder.finish().map_err(|error| {
                    SinkError::Store(StoreError::io("compress", "the snapshot")(error))
                })
            }
            Self::Zstd(encoder) => encoder.try_finish().map_err(|(mut encoder, error)| {
                encoder.get_mut().failure.take().unwrap_or_else(|| {
                    SinkError::Store(StoreError::io("compress", "the snapshot")(error))
                })
            }),
        }
    }
}

#[cfg(test)]
#[cfg(unix)]
mod tests {
    use super::*;
    use crate::evidence::complete::tests::WHOLE;
    use crate::evidence::store::tests::{MIB, names, options, store};

    fn job(compression: Compression) -> SinkJob {
        SinkJob {
            facts: SnapshotFacts {
                mode: Mode::Inline,
                reason: SnapshotReason::OnDemand,
                note: Some("test".into()),
                pair_id: Some("p1".into()),
                tid: 0,
                node_version: "v22.0.0".into(),
                heap_bytes: 5,
                redaction: "none".into(),
            },
            compression,
            predicted_file_bytes: 0,
            max_file_bytes: 64 * MIB,
            filter: None,
        }
    }

    /// A whole snapshot of about this size that does not compress to nothing.
    fn snapshot(bytes: usize) -> Vec<u8> {
        use std::fmt::Write as _;
        let mut text = String::from(r#"{"snapshot":{"meta":{}},"nodes":["#);
        let mut n = 88_172_645_463_325_252_u64;
        while text.len() < bytes {
            n ^= n << 13; // xorshift64
            n ^= n >> 7;
            n ^= n << 17;
            let _ = write!(text, "{n},");
        }
        text.push_str(r#"0],"strings":["a"]}"#);
        text.into_bytes()
    }

    /// Runs a job on these bytes; fails if the writer meets a broken pipe.
    fn run(store: &Arc<Store>, job: SinkJob, bytes: &[u8]) -> SinkReport {
        let (read, mut write) = pipe().unwrap();
        let (sender, reports) = crossbeam_channel::bounded(1);
        let handle = spawn(Arc::clone(store), read, job, sender).unwrap();
        write.write_all(bytes).unwrap();
        drop(write);
        handle.join();
        reports.recv().unwrap()
    }

    fn sha256(bytes: &[u8]) -> String {
        Sha256::digest(bytes).iter().map(|b| format!("{b:02x}")).collect()
    }

    fn unpack(compression: Compression, bytes: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        match compression {
            Compression::None => out.extend_from_slice(bytes),
            Compression::Gzip => {
                flate2::read::GzDecoder::new(bytes).read_to_end(&mut out).unwrap();
            }
            Compression::Zstd => out = zstd::decode_all(bytes).unwrap(),
        }
        out
    }

    #[test]
    fn a_snapshot_arrives_whole_with_digest_and_metadata_in_every_packing() {
        for compression in [Compression::None, Compression::Gzip, Compression::Zstd] {
            let (_root, store) = store();
            let store = Arc::new(store);
            let bytes = snapshot(3_000_000);
            let report = run(&store, job(compression), &bytes);
            assert_eq!(report.bytes_read, bytes.len() as u64);
            let file = report.result.unwrap();
            assert_eq!(file.meta_error, None);
            let on_disk = std::fs::read(&file.path).unwrap();
            assert_eq!(unpack(compression, &on_disk), bytes);
            let meta = store.read(&file.name.with_kind(Kind::Meta), 10_000).unwrap();
            let meta: SnapshotMeta = serde_json::from_slice(&meta).unwrap();
            assert_eq!(meta, file.meta);
            assert_eq!(meta.sha256, sha256(&bytes));
            assert_eq!((meta.bytes, meta.file_bytes), (bytes.len() as u64, on_disk.len() as u64));
            assert!(meta.complete && meta.node_ids_comparable);
            assert_eq!(names(store.path()).len(), 3, "snapshot, metadata, .gitignore");
        }
    }

    #[test]
    fn a_forked_snapshot_is_marked_as_not_comparable_by_node_id() {
        let (_root, store) = store();
        let mut job = job(Compression::None);
        job.facts.mode = Mode::Fork;
        let file = run(&Arc::new(store), job, WHOLE.as_bytes()).result.unwrap();
        assert!(!file.meta.node_ids_comparable);
    }

    #[test]
    fn what_is_not_whole_gets_no_name() {
        let whole = snapshot(400_000);
        for bytes in [&b""[..], b"Segmentation fault", &whole[..whole.len() - 1], &whole[..70_000]]
        {
            for compression in [Compression::None, Compression::Gzip, Compression::Zstd] {
                let (_root, store) = store();
                let store = Arc::new(store);
                let error = run(&store, job(compression), bytes).result.unwrap_err();
                assert!(matches!(error, SinkError::Incomplete { .. }), "{error}");
                assert_eq!(names(store.path()), [".gitignore"]);
            }
        }
    }

    #[test]
    fn a_snapshot_that_outgrows_its_allowance_is_read_to_the_end_and_thrown_away() {
        let bytes = snapshot(6_000_000);
        for compression in [Compression::None, Compression::Gzip, Compression::Zstd] {
            let (_root, store) = store();
            let store = Arc::new(store);
            let job = SinkJob { max_file_bytes: 100_000, ..job(compression) };
            let report = run(&store, job, &bytes);
            assert!(matches!(report.result, Err(SinkError::TooLarge { max_bytes: 100_000 })));
            assert_eq!(report.bytes_read, bytes.len() as u64);
            assert_eq!(names(store.path()), [".gitignore"]);
        }
    }

    #[test]
    fn the_quota_holds_while_a_snapshot_outgrows_its_prediction() {
        let (_root, store) = store();
        let store = Arc::new(store);
        let old = run(&store, job(Compression::None), &snapshot(2_000_000)).result.unwrap();
        let newest = run(&store, job(Compression::None), &snapshot(2_000_000)).result.unwrap();
        store.set_max_disk_bytes(6_500_000);
        let fits = run(&store, job(Compression::None), &snapshot(4_000_000)).result.unwrap();
        assert!(!old.path.exists() && newest.path.exists() && fits.path.exists());
        let report = run(&store, job(Compression::None), &snapshot(4_000_000));
        assert!(
            matches!(report.result, Err(SinkError::Store(StoreError::Quota { .. }))),
            "{report:?}"
        );
        let left: u64 = store.list().unwrap().iter().map(|file| file.size_bytes).sum();
        assert!(left <= 6_500_000);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_full_disk_stops_neither_the_writer_nor_leaves_a_file() {
        use crate::evidence::store::tests::SmallDisk;
        let Some(disk) = SmallDisk::mount(4 << 20) else { return };
        let store = Arc::new(Store::open(&options(disk.0.path())).unwrap());
        let bytes = snapshot(12 << 20);
        for compression in [Compression::None, Compression::Gzip, Compression::Zstd] {
            let report = run(&store, job(compression), &bytes);
            assert!(
                matches!(
                    report.result,
                    Err(SinkError::Store(StoreError::DiskFull { free: Some(_), .. }))
                ),
                "{report:?}"
            );
            assert_eq!(report.bytes_read, bytes.len() as u64);
            assert_eq!(names(store.path()), [".gitignore"]);
        }
        run(&store, job(Compression::None), &snapshot(1 << 20)).result.unwrap();
    }

    #[test]
    fn a_discarded_snapshot_is_drained_and_leaves_nothing() {
        let (_root, store) = store();
        let store = Arc::new(store);
        let (read, mut write) = pipe().unwrap();
        let (sender, reports) = crossbeam_channel::bounded(1);
        let handle = spawn(Arc::clone(&store), read, job(Compression::None), sender).unwrap();
        let bytes = snapshot(3_000_000);
        write.write_all(&bytes[..1_500_000]).unwrap();
        handle.discard();
        write.write_all(&bytes[1_500_000..]).unwrap();
        drop(write);
        handle.join();
        let report = reports.recv().unwrap();
        assert!(matches!(report.result, Err(SinkError::Discarded)), "{report:?}");
        assert_eq!(report.bytes_read, bytes.len() as u64);
        assert_eq!(names(store.path()), [".gitignore"]);
    }

    /// Replaces the letter z, and holds everything back until the end.
    struct Shout(Vec<u8>);

    impl Filter for Shout {
        fn push(&mut self, input: &[u8], _out: &mut Vec<u8>) -> Result<(), String> {
            self.0.extend(input.iter().map(|&b| if b == b'z' { b'Z' } else { b }));
            Ok(())
        }

        fn finish(&mut self, out: &mut Vec<u8>) -> Result<(), String> {
            out.append(&mut self.0);
            Ok(())
        }
    }

    struct Broken {
        panics: bool,
    }

    impl Filter for Broken {
        fn push(&mut self, _input: &[u8], _out: &mut Vec<u8>) -> Result<(), String> {
            assert!(!self.panics, "a bug");
            Err("no nodes before strings".into())
        }

        fn finish(&mut self, _out: &mut Vec<u8>) -> Result<(), String> {
            Ok(())
        }
    }

    #[test]
    fn only_what_the_filter_lets_through_is_hashed_and_written() {
        let (_root, store) = store();
        let filter: Option<Box<dyn Filter>> = Some(Box::new(Shout(Vec::new())));
        let bytes = br#"{"snapshot":{},"strings":["zzz"]}"#;
        let report = run(&Arc::new(store), SinkJob { filter, ..job(Compression::None) }, bytes);
        let file = report.result.unwrap();
        let redacted = br#"{"snapshot":{},"strings":["ZZZ"]}"#;
        assert_eq!(std::fs::read(&file.path).unwrap(), redacted);
        assert_eq!(file.meta.sha256, sha256(redacted));
    }

    #[test]
    fn a_filter_that_fails_or_panics_costs_the_snapshot_and_nothing_else() {
        for panics in [false, true] {
            let (_root, store) = store();
            let store = Arc::new(store);
            let bytes = snapshot(3_000_000);
            let filter: Option<Box<dyn Filter>> = Some(Box::new(Broken { panics }));
            let report = run(&store, SinkJob { filter, ..job(Compression::None) }, &bytes);
            match report.result {
                Err(SinkError::Filter(problem)) => {
                    assert!(!panics && problem.contains("no nodes"), "{problem}");
                }
                Err(SinkError::Panicked) => assert!(panics),
                other => panic!("{other:?}"),
            }
            assert_eq!(report.bytes_read, bytes.len() as u64);
            assert_eq!(names(store.path()), [".gitignore"]);
        }
    }

    #[test]
    fn a_snapshot_written_by_path_is_taken_over_or_refused() {
        let (_root, store) = store();
        let store = Arc::new(store);
        let whole = snapshot(1_000_000);
        let adopt_bytes = |bytes: &[u8], job: SinkJob| {
            let part = begin_file(&store).unwrap();
            std::fs::write(part.path(), bytes).unwrap();
            let (sender, reports) = crossbeam_channel::bounded(1);
            adopt(Arc::clone(&store), part, job, sender).unwrap().join();
            reports.recv().unwrap().result
        };
        for compression in [Compression::None, Compression::Gzip, Compression::Zstd] {
            let file = adopt_bytes(&whole, job(compression)).unwrap();
            assert_eq!(file.meta.sha256, sha256(&whole));
            let on_disk = std::fs::read(&file.path).unwrap();
            assert_eq!(file.meta.file_bytes, on_disk.len() as u64);
            assert_eq!(unpack(compression, &on_disk), whole);
        }
        let before = names(store.path());
        let error = adopt_bytes(&whole[..900_000], job(Compression::None)).unwrap_err();
        assert!(matches!(error, SinkError::Incomplete { .. }), "{error}");
        let small = SinkJob { max_file_bytes: 1000, ..job(Compression::None) };
        let error = adopt_bytes(&whole, small).unwrap_err();
        assert!(matches!(error, SinkError::TooLarge { .. }), "{error}");
        assert_eq!(names(store.path()), before);
    }

    /// Everything under a final name is whole: findings and state parse, snapshots are complete and match
    /// their metadata. Says how many snapshots there were.
    #[cfg(target_os = "linux")]
    fn assert_all_whole(dir: &std::path::Path) -> usize {
        let mut snapshots = 0;
        for name in names(dir) {
            let bytes = std::fs::read(dir.join(&name)).unwrap();
            if name.ends_with(".part") || name == "leakguard.lock" {
                continue;
            }
            assert!(!bytes.is_empty(), "{name} is empty");
            match EvidenceName::parse(&name).map(|name| name.kind()) {
                Some(Kind::Snapshot(compression)) => {
                    snapshots += 1;
                    let mut frame = Frame::new();
                    frame.push(&unpack(compression, &bytes));
                    let (digest, _) = frame.finish().unwrap_or_else(|e| panic!("{name}: {e}"));
                    let meta = EvidenceName::parse(&name).unwrap().with_kind(Kind::Meta);
                    // Killed between snapshot and metadata: the snapshot is whole all the same.
                    if let Ok(meta) = std::fs::read(dir.join(meta.to_string())) {
                        let meta: SnapshotMeta = serde_json::from_slice(&meta).unwrap();
                        assert_eq!(meta.sha256, digest, "{name}");
                    }
                }
                Some(_) => {
                    let _: serde_json::Value =
                        serde_json::from_slice(&bytes).unwrap_or_else(|e| panic!("{name}: {e}"));
                }
                None if name == "leakguard.state" => {
                    crate::evidence::State::parse(&bytes).unwrap();
                }
                None => assert_eq!(name, ".gitignore"),
            }
        }
        snapshots
    }

    /// What the child of the test below writes after each of its steps; the test harness' own output has none.
    #[cfg(target_os = "linux")]
    const STEP: u8 = 1;

    #[cfg(target_os = "linux")]
    fn tell_step() {
        let mut out = io::stdout().lock();
        out.write_all(&[STEP]).and_then(|()| out.flush()).unwrap();
    }

    /// Waits for so many steps of the child; each comes within a minute, or the test fails.
    #[cfg(target_os = "linux")]
    fn wait_for_steps(out: &mut std::process::ChildStdout, mut wanted: u64) {
        use rustix::event::{PollFd, PollFlags, Timespec, poll};
        let minute = Timespec { tv_sec: 60, tv_nsec: 0 };
        while wanted > 0 {
            let ready = poll(&mut [PollFd::new(&*out, PollFlags::IN)], Some(&minute)).unwrap();
            assert_eq!(ready, 1, "the child writes nothing");
            let mut byte = [0];
            assert_eq!(out.read(&mut byte).unwrap(), 1, "the child ended by itself");
            wanted -= u64::from(byte == [STEP]);
        }
    }

    /// The child of the test below: writes findings, snapshots and state until it is killed, and tells each step.
    #[cfg(target_os = "linux")]
    fn write_evidence_for_ever(root: &std::path::Path) -> ! {
        let store = Arc::new(Store::open(&options(root)).unwrap());
        store.set_max_disk_bytes(8 * MIB);
        let bytes = snapshot(700_000);
        let mut round = 0_u64;
        loop {
            for compression in [Compression::None, Compression::Gzip, Compression::Zstd] {
                let now = WallMillis::now();
                let text = format!(r#"{{"round":{round},"pad":"{}"}}"#, "x".repeat(20_000));
                let finding = store.write_new(Kind::Finding, now, 0, text.as_bytes()).unwrap();
                let key = crate::evidence::state::CooldownKey {
                    app: "a".into(),
                    series: "s".into(),
                    cause: round.to_string(),
                };
                tell_step();
                store.claim_finding(now, &key, 0).unwrap();
                tell_step();
                let (read, mut write) = pipe().unwrap();
                let (sender, reports) = crossbeam_channel::bounded(1);
                let sink = spawn(Arc::clone(&store), read, job(compression), sender).unwrap();
                for piece in bytes.chunks(64 << 10) {
                    write.write_all(piece).unwrap();
                    tell_step();
                }
                drop(write);
                sink.join();
                reports.recv().unwrap().result.unwrap();
                tell_step();
                store.replace(&finding, text.replace("pad", "end").as_bytes()).unwrap();
                round += 1;
            }
        }
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn killed_at_any_moment_nothing_under_a_final_name_is_partial() {
        const CHILD: &str = "LEAKGUARD_TEST_EVIDENCE_CHILD";
        const KILLS: u64 = 50;
        if let Some(root) = std::env::var_os(CHILD) {
            write_evidence_for_ever(std::path::Path::new(&root));
        }
        let root = tempfile::tempdir().unwrap();
        let dir = options(root.path()).dir;
        let (mut snapshots, mut parts) = (0, 0);
        let mut random = 0x9e37_79b9_7f4a_7c15_u64 ^ u64::from(std::process::id());
        for _ in 0..KILLS {
            let test =
                "evidence::sink::tests::killed_at_any_moment_nothing_under_a_final_name_is_partial";
            let mut child = std::process::Command::new(std::env::current_exe().unwrap())
                .args(["--exact", test])
                .env(CHILD, root.path())
                .stdout(std::process::Stdio::piped())
                .spawn()
                .unwrap();
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            // A finding, and on the average one round of three snapshots.
            wait_for_steps(child.stdout.as_mut().unwrap(), 2 + (random >> 33) % 90);
            child.kill().unwrap();
            child.wait().unwrap();
            parts += names(&dir).iter().filter(|name| name.ends_with(".part")).count();
            snapshots += assert_all_whole(&dir);
            // The next start clears up what the dead one left.
            Store::open(&options(root.path())).unwrap();
            assert!(!names(&dir).iter().any(|name| name.ends_with(".part")));
        }
        assert!(snapshots > 0 && parts > 0, "{snapshots} snapshots, {parts} parts");
    }
}
