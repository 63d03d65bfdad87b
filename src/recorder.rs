//! The flight recorder: a file of fixed size that holds what happened in this run, readable however the
//! process ends.
//!
//! Every append is one `pwrite` of 128 bytes into space that was reserved at the start. What the kernel has
//! taken survives the death of the process; the recorder does not flush, so a crash of the machine may
//! take the last half minute. It does not map the file: a mapping of a file that somebody truncates, or of a
//! hole on a full disk, kills the app with SIGBUS. Reading back is in [`history`]; what to record, and when,
//! is the sampler's business.

use std::fs::{File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};

mod format;
pub mod history;

pub use format::{
    Event, FIELDS, Field, MAX_FILE_BYTES, MAX_TEXT_BYTES, MIN_FILE_BYTES, RunHeader, Sample,
    Values, What,
};
pub use history::{ReadBackError, RunFile, RunHistory, keep_newest, read_back, runs};

use crate::probe::own;
use crate::sample::Millis;
use format::{Layout, RECORD_BYTES, Section};

/// Size of a run file unless told otherwise: 24 h at 10 s and six days at 60 s. Raising it costs that much disk
/// for each of the kept runs, lowering it shortens the history in proportion.
pub const DEFAULT_FILE_BYTES: u64 = 4 << 20;

/// Runs of one app that are kept beside the running ones.
pub const DEFAULT_KEPT_RUNS: usize = 8;

/// Isolates whose samples are thinned at a time. A worker beyond it has fine samples only.
const MAX_ISOLATES: usize = 64;

/// Names tried for a new file: runs of one app that share a pid, as all runs in containers do.
const MAX_NAMES: u32 = 1000;

/// Where and what to record.
#[derive(Clone, Debug)]
pub struct RecorderOptions {
    /// The evidence directory. It exists.
    pub directory: PathBuf,
    /// Size of the file, bytes: 1 to 64 MB.
    pub file_bytes: u64,
    /// What the run is. Its `file_bytes` is set by [`Recorder::create`]; names longer than 96 bytes are cut.
    pub header: RunHeader,
}

/// Why there is no recorder. The app runs on without one.
#[derive(Debug)]
pub enum RecorderError {
    /// A size outside 1 to 64 MB.
    Size(u64),
    /// The space cannot be reserved.
    NoRoom {
        /// Bytes that were asked for.
        bytes: u64,
        /// What the system said.
        source: io::Error,
    },
    /// The file cannot be made.
    Create {
        /// Which one.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A thousand runs of this app and pid lie there already.
    Names(PathBuf),
}

impl RecorderError {
    /// The code that JavaScript sees.
    pub fn code(&self) -> &'static str {
        "ERR_LEAKGUARD_RECORDER"
    }
}

impl std::fmt::Display for RecorderError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            RecorderError::Size(bytes) => write!(
                f,
                "flight recorder: expected a size of {MIN_FILE_BYTES} to {MAX_FILE_BYTES} bytes, got {bytes}"
            ),
            RecorderError::NoRoom { bytes, source } => {
                write!(f, "flight recorder: {bytes} bytes cannot be reserved: {source}")
            }
            RecorderError::Create { path, source } => {
                write!(f, "flight recorder: {}: {source}", path.display())
            }
            RecorderError::Names(path) => {
                write!(f, "flight recorder: no name is free beside {}", path.display())
            }
        }
    }
}

impl std::error::Error for RecorderError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            RecorderError::NoRoom { source, .. } | RecorderError::Create { source, .. } => {
                Some(source)
            }
            RecorderError::Size(_) | RecorderError::Names(_) => None,
        }
    }
}

/// The recorder of this run. The native thread owns it; dropping it without [`close`](Recorder::close)
/// leaves a run that did not end in order.
#[derive(Debug)]
pub struct Recorder {
    /// Holds an exclusive lock while this process lives: how others know that the run goes on.
    file: File,
    _own: own::Fd,
    path: PathBuf,
    file_bytes: u64,
    header_page: Vec<u8>,
    layout: Layout,
    /// Slot of each ring that is written next.
    next: [u32; Section::ALL.len()],
    sequence: u64,
    thinning: Vec<Thinning>,
    lost_records: u64,
    told: bool,
    closed: bool,
}

/// The samples of one isolate on their way into the medium and coarse rings.
#[derive(Debug)]
struct Thinning {
    isolate: u32,
    medium: Sample,
    coarse: Sample,
}

impl Recorder {
    /// Makes the file of this run: `run.<app>.<pid>.rec`, or `run.<app>.<pid>.<n>.rec` where that name is
    /// taken, as it is after every restart in a container. The whole size is reserved, the header is written,
    /// and only then the file gets its name. Nothing existing is opened or replaced.
    pub fn create(options: &RecorderOptions) -> Result<Recorder, RecorderError> {
        if !(MIN_FILE_BYTES..=MAX_FILE_BYTES).contains(&options.file_bytes) {
            return Err(RecorderError::Size(options.file_bytes));
        }
        let file_bytes = options.file_bytes / 4096 * 4096;
        let header_page = RunHeader { file_bytes, ..options.header.clone() }.encode();
        let stem = format!("run.{}.{}", file_name_part(&options.header.app), options.header.pid);
        for number in 1..=MAX_NAMES {
            let name = match number {
                1 => format!("{stem}.rec"),
                _ => format!("{stem}.{number}.rec"),
            };
            let path = options.directory.join(&name);
            if path.symlink_metadata().is_ok() {
                continue;
            }
            let part = options.directory.join(format!("{name}.part"));
            let file = match create_private(&part) {
                Ok(file) => file,
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => continue,
                Err(source) => return Err(RecorderError::Create { path: part, source }),
            };
            let own = register(&file);
            // Where the file system has no locks, the run just cannot be seen to go on.
            let _ = file.try_lock();
            let filled = reserve(&file, file_bytes)
                .map_err(|source| RecorderError::NoRoom { bytes: file_bytes, source })
                .and_then(|()| {
                    write_at(&file, &header_page, 0)
                        .map_err(|source| RecorderError::Create { path: part.clone(), source })
                });
            let named = filled.and_then(|()| {
                name_file(&part, &path)
                    .map_err(|source| RecorderError::Create { path: path.clone(), source })
            });
            match named {
                Ok(true) => {
                    return Ok(Recorder {
                        file,
                        _own: own,
                        path,
                        file_bytes,
                        header_page,
                        layout: Layout::of(file_bytes),
                        next: [0; Section::ALL.len()],
                        sequence: 0,
                        thinning: Vec::new(),
                        lost_records: 0,
                        told: false,
                        closed: false,
                    });
                }
                // Another process took the name meanwhile.
                Ok(false) => {
                    let _ = std::fs::remove_file(&part);
                }
                Err(error) => {
                    let _ = std::fs::remove_file(&part);
                    return Err(error);
                }
            }
        }
        Err(RecorderError::Names(options.directory.join(format!("{stem}.rec"))))
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Records that could not be written.
    pub fn lost_records(&self) -> u64 {
        self.lost_records
    }

    /// Records a sample, at once into the fine ring and, when its 10 or 60 seconds are over, into the others.
    /// There it stands for the last reading of each figure in that time.
    ///
    /// An error is returned the first time only; later ones are counted in [`lost_records`](Self::lost_records)
    /// and tried again with the next record. After [`close`](Self::close) nothing is written.
    pub fn append_sample(&mut self, sample: &Sample) -> io::Result<()> {
        let mut result = self.write_sample(Section::Fine, sample);
        let known = self.thinning.iter().position(|thinning| thinning.isolate == sample.isolate);
        let Some(at) = known else {
            if self.thinning.len() < MAX_ISOLATES {
                let Sample { isolate, .. } = *sample;
                self.thinning.push(Thinning { isolate, medium: *sample, coarse: *sample });
            }
            return result;
        };
        let (mut medium, mut coarse) = (None, None);
        if let Some(thinning) = self.thinning.get_mut(at) {
            medium = thin(&mut thinning.medium, sample, Section::MEDIUM_MS);
            coarse = thin(&mut thinning.coarse, sample, Section::COARSE_MS);
        }
        if let Some(medium) = medium {
            result = result.and(self.write_sample(Section::Medium, &medium));
        }
        if let Some(coarse) = coarse {
            result = result.and(self.write_sample(Section::Coarse, &coarse));
            self.forget_ended_isolates(coarse.at);
            result = result.and(self.mend());
        }
        result
    }

    /// Records an event. Errors as in [`append_sample`](Self::append_sample).
    pub fn append_event(&mut self, event: &Event) -> io::Result<()> {
        let section = match event.what {
            What::LiveHeap { .. } => Section::Readings,
            _ => Section::Events,
        };
        self.sequence += 1;
        let record = format::encode_event(self.sequence, event);
        self.write(section, &record)
    }

    /// Marks the run as ended in order; the last thing written. Safe twice.
    pub fn close(&mut self, at: Millis, code: Option<i32>, reason: &str) -> io::Result<()> {
        let what = What::Exit { code, reason: reason.to_owned() };
        let result = self.append_event(&Event { at, isolate: 0, what });
        self.closed = true;
        result
    }

    fn write_sample(&mut self, section: Section, sample: &Sample) -> io::Result<()> {
        self.sequence += 1;
        let record = format::encode_sample(self.sequence, sample);
        self.write(section, &record)
    }

    fn write(&mut self, section: Section, record: &[u8; RECORD_BYTES]) -> io::Result<()> {
        if self.closed {
            return Ok(());
        }
        let slot = self.next[section as usize];
        self.next[section as usize] = (slot + 1) % self.layout.slots(section);
        let written = write_at(&self.file, record, self.layout.offset(section, slot));
        if written.is_err() {
            self.lost_records += 1;
        }
        self.tell_once(written)
    }

    fn tell_once(&mut self, result: io::Result<()>) -> io::Result<()> {
        match result {
            Err(error) if !self.told => {
                self.told = true;
                Err(error)
            }
            _ => Ok(()),
        }
    }

    /// Once a minute: a file that somebody truncated gets its header and its size back, or none of what
    /// is recorded from now on could be read.
    fn mend(&mut self) -> io::Result<()> {
        let whole = self.file.metadata().is_ok_and(|metadata| metadata.len() >= self.file_bytes);
        if whole || self.closed {
            return Ok(());
        }
        let mended = reserve(&self.file, self.file_bytes)
            .and_then(|()| write_at(&self.file, &self.header_page, 0));
        self.tell_once(mended)
    }

    /// A worker that sent nothing for two minutes has ended; its place is for others.
    fn forget_ended_isolates(&mut self, now: Millis) {
        let oldest = now.0.saturating_sub(2 * Section::COARSE_MS);
        self.thinning.retain(|thinning| thinning.coarse.at.0 >= oldest);
    }
}

/// Takes `sample` into the period that is being gathered; gives that period's sample when a new one begins.
fn thin(gathered: &mut Sample, sample: &Sample, period_ms: u64) -> Option<Sample> {
    if gathered.at.0 / period_ms == sample.at.0 / period_ms {
        gathered.at = sample.at;
        gathered.values.update(&sample.values);
        return None;
    }
    Some(std::mem::replace(gathered, *sample))
}

/// The app's name as a part of a file name: letters, digits, `-` and `_`, at most 64 of them.
fn file_name_part(app: &str) -> String {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
    let name: String = app.chars().map(|c| if allowed(c) { c } else { '-' }).take(64).collect();
    let name = name.trim_matches('-');
    if name.is_empty() { "app".to_owned() } else { name.to_owned() }
}

fn create_private(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create_new(true);
    #[cfg(unix)]
    {
        use std::os::unix::fs::OpenOptionsExt;
        options.mode(0o600).custom_flags(libc::O_NOFOLLOW | libc::O_CLOEXEC);
    }
    options.open(path)
}

fn register(file: &File) -> own::Fd {
    #[cfg(unix)]
    {
        own::numbered_fd(std::os::fd::AsRawFd::as_raw_fd(file))
    }
    #[cfg(not(unix))]
    {
        let _ = file;
        own::fd()
    }
}

/// Reserves the space, so that a disk that fills up later takes nothing from the recorder.
fn reserve(file: &File, bytes: u64) -> io::Result<()> {
    #[cfg(target_os = "linux")]
    {
        use rustix::fs::{FallocateFlags, fallocate};
        use rustix::io::Errno;
        loop {
            match fallocate(file, FallocateFlags::empty(), 0, bytes) {
                Ok(()) => return Ok(()),
                Err(Errno::INTR) => {}
                // The file system cannot, as NFS below 4.2; writing does the same.
                Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL) => break,
                Err(error) => return Err(error.into()),
            }
        }
    }
    write_zeros(file, bytes)
}

fn write_zeros(file: &File, bytes: u64) -> io::Result<()> {
    const BLOCK: u64 = 64 << 10;
    let zeros = vec![0; BLOCK as usize];
    let mut at = 0;
    while at < bytes {
        let length = BLOCK.min(bytes - at);
        write_at(file, zeros.get(..length as usize).unwrap_or_default(), at)?;
        at += length;
    }
    Ok(())
}

/// Writes all of `bytes` in one call. A short write, as the last one before a full disk, is an error.
fn write_at(file: &File, bytes: &[u8], offset: u64) -> io::Result<()> {
    #[cfg(unix)]
    let written = std::os::unix::fs::FileExt::write_at(file, bytes, offset)?;
    #[cfg(windows)]
    let written = std::os::windows::fs::FileExt::seek_write(file, bytes, offset)?;
    if written < bytes.len() {
        return Err(io::Error::new(
            io::ErrorKind::WriteZero,
            format!("{written} of {} bytes written", bytes.len()),
        ));
    }
    Ok(())
}

/// Gives a finished file its name; `false` if that name is taken. A rename would replace what has the name,
/// a link does not.
fn name_file(part: &Path, path: &Path) -> io::Result<bool> {
    match std::fs::hard_link(part, path) {
        Ok(()) => {
            std::fs::remove_file(part)?;
            Ok(true)
        }
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
        // No links on this file system (some network and FUSE ones).
        Err(_) if path.symlink_metadata().is_err() => std::fs::rename(part, path).map(|()| true),
        Err(_) => Ok(false),
    }
}

#[cfg(test)]
mod tests;
