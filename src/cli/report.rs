//! `leakguard report DIR`.

use std::path::PathBuf;

use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};

use super::run::{Exit, Failure, Session};
use crate::report::{history, html};

/// Where the page goes unless `--out` says otherwise: the working directory, since the evidence may lie on a volume that
/// is read-only here, and a stranger there would count against its quota.
const DEFAULT_OUT: &str = "leakguard-report.html";

/// Its arguments.
pub fn command() -> Command {
    Command::new("report")
        .about("Writes a page on everything in an evidence directory: findings, runs, snapshots, refusals")
        .arg(Arg::new("directory").value_name("DIR").required(true).value_parser(value_parser!(PathBuf)))
        .arg(
            Arg::new("out")
                .long("out")
                .value_name("FILE")
                .value_parser(value_parser!(PathBuf))
                .default_value(DEFAULT_OUT)
                .help("The page; it needs no network"),
        )
        .arg(
            Arg::new("json")
                .long("json")
                .action(ArgAction::SetTrue)
                .help("Write what the page would show to stdout as JSON, and no page"),
        )
}

/// Runs it.
pub fn run(matches: &ArgMatches, session: &mut Session<'_>) -> Result<Exit, Failure> {
    let Some(directory) = matches.get_one::<PathBuf>("directory") else { return Ok(Exit::Usage) };
    let history =
        history::read(directory).map_err(|error| Failure::Directory(directory.clone(), error))?;
    if matches.get_flag("json") {
        let written =
            serde_json::to_writer(&mut *session.stdout, &history).map_err(std::io::Error::from);
        let written = written.and_then(|()| session.stdout.write_all(b"\n"));
        return match written {
            Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
                Err(Failure::Output(PathBuf::from("stdout"), error))
            }
            _ => Ok(Exit::Done),
        };
    }
    let Some(out) = matches.get_one::<PathBuf>("out") else { return Ok(Exit::Usage) };
    session.page(out, &|writer| html::write_history(&history, writer))?;
    Ok(Exit::Done)
}
