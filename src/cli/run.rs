//! What all verbs share: exit codes, progress, opening a snapshot within the memory there is, writing a report.

use std::fmt;
use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};

use clap::{Arg, ArgAction, ArgMatches, value_parser};

use super::memory;
use crate::doctor::Runtime;
use crate::heap::analysis::{Request, has_graph};
use crate::heap::graph::{Graph, Parallelism};
use crate::heap::snapshot::{OpenOptions, Snapshot};
use crate::heap::suspects::bytes;
use crate::heap::{Error, NodeOrdinal};
use crate::report::html::{self, Html};
use crate::report::json::Json;
use crate::report::text::Text;
use crate::report::{Output, Report};

/// Share of the available memory that may be used: what is read of it is a moment old.
const USABLE_SHARE: f64 = 0.9;
/// Rows of each table unless `--top` says otherwise.
const DEFAULT_TOP: usize = 20;
/// Suspects that are told.
const SUSPECTS: usize = 10;

/// How a command line ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// As asked.
    Done,
    /// A `--fail-on-…` flag applied.
    FailOn,
    /// Wrong usage or bad input.
    Usage,
    /// Refused for lack of memory or disk.
    Refused,
}

impl Exit {
    /// The process' exit code.
    pub fn code(self) -> i32 {
        match self {
            Self::Done => 0,
            Self::FailOn => 1,
            Self::Usage => 2,
            Self::Refused => 3,
        }
    }
}

/// Why a verb could not do its work.
#[derive(Debug)]
pub enum Failure {
    /// A file could not be read as a snapshot.
    Input(PathBuf, Error),
    /// A file could not be written.
    Output(PathBuf, std::io::Error),
    /// A directory could not be read.
    Directory(PathBuf, std::io::Error),
    /// An argument makes no sense.
    Argument(String),
    /// The work would not fit.
    Memory {
        /// The file.
        file: PathBuf,
        /// Bytes it takes.
        needed: u64,
        /// Bytes there are.
        available: u64,
    },
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Input(_, error @ Error::Io { .. }) => write!(f, "{error}"),
            Self::Input(file, error) => write!(f, "{}: {error}", file.display()),
            Self::Output(file, error) | Self::Directory(file, error) => {
                write!(f, "{}: {error}", file.display())
            }
            Self::Argument(message) => f.write_str(message),
            Self::Memory { file, needed, available } => write!(
                f,
                "refused: {} takes about {} of memory, and {} are available; close something, or use --memory to allow it",
                file.display(),
                bytes(*needed),
                bytes(*available)
            ),
        }
    }
}

/// One run of the command line: where it writes, and whether a person watches.
pub struct Session<'a> {
    /// The process it runs in.
    pub runtime: Runtime,
    /// Reports go here.
    pub stdout: &'a mut dyn Write,
    stderr: &'a mut dyn Write,
    watched: bool,
}

impl<'a> Session<'a> {
    /// Progress is shown when the process' stderr is a terminal.
    pub fn new(runtime: Runtime, stdout: &'a mut dyn Write, stderr: &'a mut dyn Write) -> Self {
        Self { runtime, stdout, stderr, watched: std::io::stderr().is_terminal() }
    }

    /// Shows what is going on, on a terminal only.
    pub fn progress(&mut self, what: &str) {
        if self.watched {
            let _ = write!(self.stderr, "\r\x1b[K{what} ...");
            let _ = self.stderr.flush();
        }
    }

    /// Takes the progress line away.
    pub fn progress_over(&mut self) {
        if self.watched {
            let _ = write!(self.stderr, "\r\x1b[K");
            let _ = self.stderr.flush();
        }
    }

    /// One line for whoever reads stderr.
    pub fn say(&mut self, line: &str) {
        self.progress_over();
        let _ = writeln!(self.stderr, "leakguard: {line}");
    }

    /// Tells a failure and gives its exit code.
    pub fn fail(&mut self, failure: &Failure) -> Exit {
        self.say(&failure.to_string());
        match failure {
            Failure::Memory { .. } | Failure::Input(_, Error::TooLarge { .. }) => Exit::Refused,
            _ => Exit::Usage,
        }
    }

    /// Opens a snapshot and computes its graph, after saying what it takes and whether that is there.
    ///
    /// # Errors
    /// [`Failure::Memory`] when it does not fit, [`Failure::Input`] when it cannot be read.
    pub fn open(
        &mut self,
        file: &Path,
        matches: &ArgMatches,
        parallelism: Parallelism,
    ) -> Result<(Snapshot, Graph), Failure> {
        let input = |error| Failure::Input(file.to_path_buf(), error);
        let needed = memory::predicted(file).map_err(input)?;
        let available = allowed(matches);
        if self.watched {
            let of = available
                .map(|available| format!(" of {} available", bytes(available)))
                .unwrap_or_default();
            self.say(&format!("{} takes about {} of memory{of}", file.display(), bytes(needed)));
        }
        if let Some(available) = available.filter(|&available| needed > available) {
            return Err(Failure::Memory { file: file.to_path_buf(), needed, available });
        }
        self.progress(&format!("reading {}", file.display()));
        let options = OpenOptions { allowed_bytes: available.unwrap_or(u64::MAX) };
        let mut snapshot = Snapshot::open(file, options).map_err(input)?;
        snapshot.drop_parsed_text();
        self.progress("computing dominators, sizes and distances");
        let graph = Graph::new(&snapshot, parallelism);
        self.progress_over();
        Ok((snapshot, graph))
    }

    /// Writes the report as text, as `--json`, or as a page to the file of `--html`; with both flags as both.
    ///
    /// # Errors
    /// When stdout or the file takes no more.
    pub fn report(&mut self, matches: &ArgMatches, report: &Report) -> Result<(), Failure> {
        self.progress_over();
        let json = matches.get_flag("json");
        if let Some(file) = matches.get_one::<PathBuf>("html") {
            self.page(file, &|out| Html.write(report, out))?;
            if !json {
                return Ok(());
            }
        }
        let output: &dyn Output = if json { &Json } else { &Text };
        let written = output.write(report, self.stdout).and_then(|()| self.stdout.flush());
        written.or_else(|error| match error.kind() {
            // `leakguard … | head` is no failure.
            std::io::ErrorKind::BrokenPipe => Ok(()),
            _ => Err(Failure::Output(PathBuf::from("stdout"), error)),
        })
    }
}

impl Session<'_> {
    /// Writes a page to `file`, readable by its owner only, since it holds strings of the app; whole or not at all.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn page(
        &mut self,
        file: &Path,
        write: &dyn Fn(&mut dyn Write) -> std::io::Result<()>,
    ) -> Result<(), Failure> {
        let failed = |error| Failure::Output(file.to_path_buf(), error);
        let mut part = file.as_os_str().to_owned();
        part.push(format!(".{}.part", std::process::id()));
        let part = PathBuf::from(part);
        let written = create_private(&part).and_then(|created| {
            let mut out = std::io::BufWriter::new(created);
            write(&mut out)?;
            let length =
                out.into_inner().map_err(std::io::IntoInnerError::into_error)?.metadata()?.len();
            std::fs::rename(&part, file)?;
            Ok(length)
        });
        let length = written.map_err(|error| {
            let _ = std::fs::remove_file(&part);
            failed(error)
        })?;
        // Whoever closed stdout has no use for the line.
        let _ = writeln!(self.stdout, "{} ({})", file.display(), bytes(length));
        Ok(())
    }
}

fn create_private(path: &Path) -> std::io::Result<std::fs::File> {
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)
}

/// What may be used: `--memory`, else the greater part of what is available.
fn allowed(matches: &ArgMatches) -> Option<u64> {
    let given = matches.get_one::<u64>("memory").copied();
    given.or_else(|| memory::available().map(|available| (available as f64 * USABLE_SHARE) as u64))
}

/// `--json`, `--html`, `--top`, `--memory`, `--threads`, and what the guard says when it asks.
pub fn report_args() -> [Arg; 6] {
    [
        Arg::new("json")
            .long("json")
            .action(ArgAction::SetTrue)
            .help("Write JSON (schema: docs/SNAPSHOT-JSON.md)"),
        Arg::new("html")
            .long("html")
            .value_name("OUT")
            .value_parser(value_parser!(PathBuf))
            .help("Write a page that needs no network to this file instead"),
        Arg::new("top")
            .long("top")
            .value_name("N")
            .value_parser(value_parser!(usize))
            .help("Rows of each table, default 20, of a page 500"),
        memory_arg(),
        Arg::new("threads")
            .long("threads")
            .value_name("N")
            .value_parser(["1", "2"])
            .help("Threads to work on; default 2 where there are as many processors"),
        Arg::new("for-pid")
            .long("for-pid")
            .value_name("PID")
            .value_parser(value_parser!(u32))
            .hide(true)
            .help("Work for this parent process: at the lowest priority, and end with it"),
    ]
}

/// Obeys `--for-pid`.
///
/// # Errors
/// [`Failure::Argument`] when the parent has ended already.
pub fn work_for_parent(matches: &ArgMatches) -> Result<(), Failure> {
    let Some(&parent) = matches.get_one::<u32>("for-pid") else { return Ok(()) };
    #[cfg(unix)]
    {
        use rustix::process::{getppid, setpriority_process};
        // Inherited on Linux; elsewhere the priority is a process' own.
        let _ = setpriority_process(None, 19);
        #[cfg(target_os = "linux")]
        let _ =
            rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL));
        // It may have ended before the line above.
        if getppid().map(|pid| pid.as_raw_nonzero().get().unsigned_abs()) != Some(parent) {
            return Err(Failure::Argument(format!(
                "process {parent} is not the parent of this one"
            )));
        }
    }
    #[cfg(not(unix))]
    let _ = parent;
    Ok(())
}

/// `--memory`.
pub fn memory_arg() -> Arg {
    Arg::new("memory").long("memory").value_name("SIZE").value_parser(parse_size).help(
        "Memory that may be used, like 4GB; default is what the machine or container has left",
    )
}

/// What to put into a report, by the arguments all reports share.
pub fn request(matches: &ArgMatches) -> Request {
    let two = match matches.get_one::<String>("threads") {
        Some(threads) => threads == "2",
        None => std::thread::available_parallelism().is_ok_and(|processors| processors.get() > 1),
    };
    let default_top = if matches.contains_id("html") { html::TOP } else { DEFAULT_TOP };
    Request {
        top: matches.get_one::<usize>("top").copied().unwrap_or(default_top),
        suspects: SUSPECTS,
        paths: Vec::new(),
        classes: Vec::new(),
        parallelism: if two { Parallelism::Two } else { Parallelism::Single },
    }
}

/// A size like `64MB`: `B KB MB GB`, powers of 1024.
pub fn parse_size(text: &str) -> Result<u64, String> {
    let expected = || format!("expected a size like 64MB, got {text:?}");
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let number: f64 = number.parse().map_err(|_| expected())?;
    let factor = match unit.trim().to_ascii_uppercase().as_str() {
        "" | "B" => 1_u64,
        "KB" => 1 << 10,
        "MB" => 1 << 20,
        "GB" => 1 << 30,
        _ => return Err(expected()),
    };
    Ok((number * factor as f64) as u64)
}

/// Writes distance, dominator, retained and shallow size of every node: a little-endian u32 count, then the columns as
/// i32, u32, f64 and f64.
///
/// # Errors
/// When the file cannot be written.
pub fn write_columns(file: &Path, snapshot: &Snapshot, graph: &Graph) -> std::io::Result<()> {
    let mut out = std::io::BufWriter::new(std::fs::File::create(file)?);
    let nodes = if has_graph(snapshot) { snapshot.node_count() } else { 0 };
    out.write_all(&(nodes as u32).to_le_bytes())?;
    let all = || (0..nodes as u32).map(NodeOrdinal);
    for node in all() {
        out.write_all(&graph.distance[node.at()].to_le_bytes())?;
    }
    for node in all() {
        out.write_all(&graph.dominator(node).0.to_le_bytes())?;
    }
    for node in all() {
        out.write_all(&(graph.retained(node) as f64).to_le_bytes())?;
    }
    for node in all() {
        out.write_all(&(graph.shallow(node) as f64).to_le_bytes())?;
    }
    out.flush()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_units_of_1024() {
        assert_eq!(parse_size("64MB"), Ok(64 << 20));
        assert_eq!(parse_size("1.5kb"), Ok(1536));
        assert_eq!(parse_size("7"), Ok(7));
        for wrong in ["", "MB", "5 parsecs", "-1MB"] {
            assert!(parse_size(wrong).is_err(), "{wrong}");
        }
    }
}
