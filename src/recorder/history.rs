//! Reading runs back: one file into its history, a directory into its runs.
//!
//! The file may be of a process that still writes, that was killed, or of somebody who means ill: whatever
//! is in it, reading ends, does not panic, and takes memory in proportion to the size that the header may
//! claim at most (64 MB). It does not judge why a run ended.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};

use super::format::{
    self, Event, Field, HEADER_BYTES, Layout, RECORD_BYTES, Record, RunHeader, Sample, Section,
    Slot, What,
};
use crate::sample::Millis;

/// Files of a directory that are looked at; the directory has a quota, so more is not ours.
const MAX_RUNS: usize = 10_000;

/// What one run left.
#[derive(Clone, Debug, PartialEq)]
pub struct RunHistory {
    /// What the run was.
    pub header: RunHeader,
    /// Samples in order of time: as fine as they were kept, and no time twice.
    pub samples: Vec<Sample>,
    /// Live-heap readings ([`What::LiveHeap`]) in order of time.
    pub readings: Vec<Event>,
    /// All other events in order of time.
    pub events: Vec<Event>,
    /// Records whose checksum is wrong. In the file of a run that goes on, one may be in the middle of being
    /// written.
    pub torn_records: u64,
    /// Records of kinds that this version does not know.
    pub unknown_records: u64,
    /// Places for records that the file lacks because it was truncated.
    pub missing_records: u64,
}

impl RunHistory {
    /// The exit record, if the run ended in order.
    pub fn exit(&self) -> Option<&Event> {
        self.events.iter().rev().find(|event| matches!(event.what, What::Exit { .. }))
    }

    /// Whether the run ended in order. A run that goes on has not.
    pub fn ended_cleanly(&self) -> bool {
        self.exit().is_some()
    }

    /// All of it as JSON, with only the newest `samples` samples; all by default.
    pub fn to_json(&self, samples: Option<usize>) -> Value {
        let skipped = self.samples.len().saturating_sub(samples.unwrap_or(usize::MAX));
        let event = |event: &Event| json!({ "atMs": event.at.0, "isolate": event.isolate, "what": event.what });
        json!({
            "header": self.header,
            "samples": self.samples.iter().skip(skipped).map(sample_json).collect::<Vec<_>>(),
            "readings": self.readings.iter().map(event).collect::<Vec<_>>(),
            "events": self.events.iter().map(event).collect::<Vec<_>>(),
            "tornRecords": self.torn_records,
            "unknownRecords": self.unknown_records,
            "missingRecords": self.missing_records,
        })
    }

    /// Time of the last record.
    pub fn last_at(&self) -> Option<Millis> {
        let sample = self.samples.last().map(|sample| sample.at);
        let event = self.events.last().map(|event| event.at);
        let reading = self.readings.last().map(|event| event.at);
        sample.max(event).max(reading)
    }
}

fn sample_json(sample: &Sample) -> Value {
    let values: Map<String, Value> = Field::ALL
        .into_iter()
        .filter_map(|field| {
            let name = serde_json::to_value(field).ok()?.as_str()?.to_owned();
            Some((name, json!(sample.values.get(field)?)))
        })
        .collect();
    json!({ "atMs": sample.at.0, "isolate": sample.isolate, "values": values })
}

/// Why a file cannot be read as a run.
#[derive(Debug)]
pub enum ReadBackError {
    /// The system refuses.
    Io(io::Error),
    /// It is no run file, or its header is damaged; the text says what is wrong.
    NotARun(String),
}

impl std::fmt::Display for ReadBackError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            ReadBackError::Io(error) => write!(f, "run file: {error}"),
            ReadBackError::NotARun(why) => write!(f, "not a run file: {why}"),
        }
    }
}

impl std::error::Error for ReadBackError {}

impl From<io::Error> for ReadBackError {
    fn from(error: io::Error) -> Self {
        ReadBackError::Io(error)
    }
}

/// Reads a run file. A link is not followed.
pub fn read_back(path: &Path) -> Result<RunHistory, ReadBackError> {
    read_back_from(open_regular(path)?)
}

/// Reads a run from its bytes, from the first one on.
pub fn read_back_from(mut source: impl Read) -> Result<RunHistory, ReadBackError> {
    let header = read_header(&mut source)?;
    let layout = Layout::of(header.file_bytes);
    let mut history = RunHistory {
        header,
        samples: Vec::new(),
        readings: Vec::new(),
        events: Vec::new(),
        torn_records: 0,
        unknown_records: 0,
        missing_records: 0,
    };

    let mut samples = [const { Vec::new() }; Section::ALL.len()];
    let mut readings = Vec::new();
    let mut events = Vec::new();
    let mut slots = Slots::new(source);
    for section in Section::ALL {
        for read in 0..layout.slots(section) {
            let Some(bytes) = slots.next()? else {
                history.missing_records += u64::from(layout.slots(section) - read);
                break;
            };
            match format::decode(bytes) {
                Slot::Empty => {}
                Slot::Torn => history.torn_records += 1,
                Slot::Unknown => history.unknown_records += 1,
                Slot::Valid(sequence, Record::Sample(sample)) => {
                    samples[section as usize].push((sequence, sample));
                }
                Slot::Valid(sequence, Record::Event(event)) => match event.what {
                    What::LiveHeap { .. } => readings.push((sequence, event)),
                    _ => events.push((sequence, event)),
                },
            }
        }
    }
    history.samples = merge(samples);
    history.readings = in_order(readings, |event| event.at);
    history.events = in_order(events, |event| event.at);
    Ok(history)
}

/// Each ring gives what is older than the finer ones hold.
fn merge(rings: [Vec<(u64, Sample)>; Section::ALL.len()]) -> Vec<Sample> {
    let mut merged: Vec<(u64, Sample)> = Vec::new();
    let mut held_from = None;
    for ring in rings {
        let oldest = ring.iter().map(|(_, sample)| sample.at).min();
        let older = |at: Millis| held_from.is_none_or(|held| at < held);
        merged.extend(ring.into_iter().filter(|(_, sample)| older(sample.at)));
        held_from = held_from.into_iter().chain(oldest).min();
    }
    in_order(merged, |sample| sample.at)
}

/// By time, and by sequence where the time is the same.
fn in_order<T>(mut records: Vec<(u64, T)>, at: impl Fn(&T) -> Millis) -> Vec<T> {
    records.sort_by_key(|(sequence, record)| (at(record), *sequence));
    records.into_iter().map(|(_, record)| record).collect()
}

fn read_header(source: &mut impl Read) -> Result<RunHeader, ReadBackError> {
    let mut page = Vec::with_capacity(HEADER_BYTES);
    source.take(HEADER_BYTES as u64).read_to_end(&mut page)?;
    RunHeader::decode(&page).map_err(ReadBackError::NotARun)
}

/// The slots of a source one by one, read in blocks.
struct Slots<R> {
    source: R,
    block: Vec<u8>,
    at: usize,
}

impl<R: Read> Slots<R> {
    const BLOCK: u64 = 512 * RECORD_BYTES as u64;

    fn new(source: R) -> Self {
        Slots { source, block: Vec::new(), at: 0 }
    }

    /// The next slot; `None` at the end. A slot that is cut off is not one.
    fn next(&mut self) -> io::Result<Option<&[u8; RECORD_BYTES]>> {
        if self.at >= self.block.len() {
            self.block.clear();
            self.at = 0;
            self.source.by_ref().take(Self::BLOCK).read_to_end(&mut self.block)?;
        }
        let slot = self.block.get(self.at..).and_then(|rest| rest.first_chunk());
        self.at += RECORD_BYTES;
        Ok(slot)
    }
}

/// A run file of a directory.
#[derive(Clone, Debug, PartialEq)]
pub struct RunFile {
    /// Where it is.
    pub path: PathBuf,
    /// What the run was; `None` if the header cannot be read.
    pub header: Option<RunHeader>,
    /// Whether its process still lives, known by the lock it holds on the file, also across containers that
    /// share a volume. `None` where the file system has no locks.
    pub running: Option<bool>,
}

/// The run files of a directory, newest start first, unreadable ones last. Links and what is no regular file
/// are left out. Only headers are read.
pub fn runs(directory: &Path) -> io::Result<Vec<RunFile>> {
    let mut runs = Vec::new();
    for entry in std::fs::read_dir(directory)?.take(MAX_RUNS) {
        let entry = entry?;
        let name = entry.file_name();
        let named_so =
            name.to_str().is_some_and(|name| name.starts_with("run.") && name.ends_with(".rec"));
        if !named_so {
            continue;
        }
        let path = entry.path();
        // Removed since, a link, or not ours to read: none of our runs.
        let Ok(mut file) = open_regular(&path) else { continue };
        let running = running(&file);
        runs.push(RunFile { header: read_header(&mut file).ok(), running, path });
    }
    let start = |run: &RunFile| run.header.as_ref().map(|header| header.started_unix_ms);
    // Of two runs that started in one millisecond any order will do, if it is always the same.
    runs.sort_by(|a, b| start(b).cmp(&start(a)).then_with(|| b.path.cmp(&a.path)));
    Ok(runs)
}

/// Removes the oldest runs of `app` that have ended, until `keep` of them are left; gives what was removed.
/// A run that goes on, or may go on, is neither counted nor removed. A file that cannot be removed stays.
pub fn keep_newest(directory: &Path, app: &str, keep: usize) -> io::Result<Vec<PathBuf>> {
    // The header holds the name as it was cut when written.
    let app = RunHeader { app: app.to_owned(), ..RunHeader::default() }.bounded().app;
    let ended = runs(directory)?.into_iter().filter(|run| {
        run.running == Some(false) && run.header.as_ref().is_some_and(|header| header.app == app)
    });
    let surplus: Vec<PathBuf> = ended.skip(keep).map(|run| run.path).collect();
    Ok(surplus.into_iter().filter(|path| std::fs::remove_file(path).is_ok()).collect())
}

/// Opens a regular file for reading; a link, a pipe or a device is an error.
fn open_regular(path: &Path) -> io::Result<File> {
    let mut options = std::fs::OpenOptions::new();
    options.read(true);
    #[cfg(unix)]
    {
        use std::os::unix::fs::OpenOptionsExt;
        // Non-blocking: opening a pipe would wait for its other end.
        options.custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_CLOEXEC);
    }
    let file = options.open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is no regular file"));
    }
    Ok(file)
}

fn running(file: &File) -> Option<bool> {
    match file.try_lock_shared() {
        Ok(()) => {
            // The lock goes with the file; giving it back at once keeps others from seeing it.
            let _ = file.unlock();
            Some(false)
        }
        Err(std::fs::TryLockError::WouldBlock) => Some(true),
        Err(std::fs::TryLockError::Error(_)) => None,
    }
}
