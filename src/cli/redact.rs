//! `leakguard redact IN OUT`.

use std::fs::{File, OpenOptions};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};

use super::memory;
use super::run::{Exit, Failure, Session, memory_arg};
use crate::heap::redact::{KEY_BYTES, Redacted, Redaction, Redactor, random_key, redact};
use crate::heap::suspects::grouped;
use crate::heap::{Error, file};

/// Text that is redacted at a time.
const PIECE_BYTES: usize = 256 << 10;

/// zstd's fastest level: eleven times smaller at the speed of the disk.
const ZSTD_LEVEL: i32 = 1;

/// Its arguments.
pub fn command() -> Command {
    let path = || value_parser!(PathBuf);
    Command::new("redact")
        .about(
            "Writes a heap snapshot without the user's text; sizes, edges and ids stay as they are",
        )
        .arg(Arg::new("in").value_name("IN").required(true).value_parser(path()))
        .arg(
            Arg::new("out")
                .value_name("OUT")
                .required(true)
                .value_parser(path())
                .help("A name ending in .gz or .zst is compressed"),
        )
        .arg(
            Arg::new("keys")
                .long("keys")
                .action(ArgAction::SetTrue)
                .help("Hide property names too"),
        )
        .arg(memory_arg())
}

/// Runs it.
pub fn run(matches: &ArgMatches, session: &mut Session<'_>) -> Result<Exit, Failure> {
    let (Some(input), Some(out)) =
        (matches.get_one::<PathBuf>("in"), matches.get_one::<PathBuf>("out"))
    else {
        return Ok(Exit::Usage);
    };
    let mode = if matches.get_flag("keys") { Redaction::Keys } else { Redaction::Strings };
    let allowed =
        matches.get_one::<u64>("memory").copied().or_else(memory::available).unwrap_or(u64::MAX);
    let failed = |error| Failure::Input(input.clone(), error);
    session.progress(&format!("reading {}", input.display()));
    let opened = file::open(input, allowed).map_err(failed)?;
    if opened.damaged {
        let offset = opened.bytes.len() as u64;
        return Err(failed(Error::Malformed {
            offset,
            expected: "a whole compressed stream".to_owned(),
        }));
    }
    session.progress(&format!("writing {}", out.display()));
    let written = write(&opened.bytes, mode, out).map_err(failed)?;
    let done = written.map_err(|error| Failure::Output(out.clone(), error))?;
    session.say(&format!(
        "{}: {} of {} strings replaced",
        out.display(),
        grouped(done.replaced),
        grouped(done.strings)
    ));
    Ok(Exit::Done)
}

/// Writes to a temporary name, which becomes `out` only when all is there.
fn write(text: &[u8], mode: Redaction, out: &Path) -> Result<std::io::Result<Redacted>, Error> {
    let mut name = out.as_os_str().to_owned();
    name.push(".part");
    let part = PathBuf::from(name);
    let key = random_key();
    let attempt = |way: Way| -> std::io::Result<Result<Redacted, Error>> {
        let file = create(&part)?;
        let mut writer = Compressed::new(out, BufWriter::with_capacity(1 << 20, file))?;
        let done = match way(text, mode, &key, &mut writer) {
            Ok(done) => done?,
            Err(error) => return Ok(Err(error)),
        };
        writer.finish()?;
        std::fs::rename(&part, out)?;
        Ok(Ok(done))
    };
    let mut result = attempt(in_pieces);
    // A file whose sections are in another order than V8's takes memory for all of it; so does the better error.
    if matches!(result, Ok(Err(_))) {
        result = attempt(redact);
    }
    if !matches!(result, Ok(Ok(_))) {
        let _ = std::fs::remove_file(&part);
    }
    match result {
        Ok(Ok(done)) => Ok(Ok(done)),
        Ok(Err(error)) => Err(error),
        Err(error) => Ok(Err(error)),
    }
}

/// One of the two ways to the same bytes.
type Way = fn(
    &[u8],
    Redaction,
    &[u8; KEY_BYTES],
    &mut dyn Write,
) -> Result<std::io::Result<Redacted>, Error>;

/// As the guard redacts while V8 writes: in bounded memory.
fn in_pieces(
    text: &[u8],
    mode: Redaction,
    key: &[u8; KEY_BYTES],
    out: &mut dyn Write,
) -> Result<std::io::Result<Redacted>, Error> {
    let mut redactor = Redactor::new(mode, *key);
    let mut redacted = Vec::new();
    for piece in text.chunks(PIECE_BYTES) {
        redacted.clear();
        redactor.push(piece, &mut redacted)?;
        if let Err(error) = out.write_all(&redacted) {
            return Ok(Err(error));
        }
    }
    let done = redactor.finish()?;
    Ok(out.flush().map(|()| done))
}

/// A new file for its owner only.
fn create(path: &Path) -> std::io::Result<File> {
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)
}

/// A writer that compresses by the file's extension.
enum Compressed {
    Plain(BufWriter<File>),
    Gzip(flate2::write::GzEncoder<BufWriter<File>>),
    Zstd(zstd::stream::write::Encoder<'static, BufWriter<File>>),
}

impl Compressed {
    fn new(name: &Path, file: BufWriter<File>) -> std::io::Result<Self> {
        Ok(match name.extension().and_then(std::ffi::OsStr::to_str) {
            Some("gz") => {
                Self::Gzip(flate2::write::GzEncoder::new(file, flate2::Compression::fast()))
            }
            Some("zst") => Self::Zstd(zstd::stream::write::Encoder::new(file, ZSTD_LEVEL)?),
            _ => Self::Plain(file),
        })
    }

    /// Ends the stream and puts all of it on the disk.
    fn finish(self) -> std::io::Result<()> {
        let file = match self {
            Self::Plain(file) => file,
            Self::Gzip(encoder) => encoder.finish()?,
            Self::Zstd(encoder) => encoder.finish()?,
        };
        file.into_inner().map_err(std::io::IntoInnerError::into_error)?.sync_all()
    }

    fn inner(&mut self) -> &mut dyn Write {
        match self {
            Self::Plain(file) => file,
            Self::Gzip(encoder) => encoder,
            Self::Zstd(encoder) => encoder,
        }
    }
}

impl Write for Compressed {
    fn write(&mut self, buffer: &[u8]) -> std::io::Result<usize> {
        self.inner().write(buffer)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.inner().flush()
    }
}
