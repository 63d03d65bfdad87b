//! `leakguard analyze FILE`.

use std::path::PathBuf;

use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};

use super::beside;
use super::run::{Exit, Failure, Session, report_args, request, work_for_parent, write_columns};
use crate::heap::analysis::analyse;
use crate::report::Report;

/// Its arguments.
pub fn command() -> Command {
    Command::new("analyze")
        .about("Names what holds the memory of one heap snapshot (plain, gzip or zstd)")
        .arg(Arg::new("file").value_name("FILE").required(true).value_parser(value_parser!(PathBuf)))
        .arg(
            Arg::new("path")
                .long("path")
                .value_name("@ID")
                .action(ArgAction::Append)
                .value_parser(parse_id)
                .help("Also the retaining path of this node; may be given more than once"),
        )
        .arg(
            Arg::new("class")
                .long("class")
                .value_name("NAME")
                .action(ArgAction::Append)
                .help("Also the largest objects of this class; may be given more than once"),
        )
        .args(report_args())
        .arg(
            Arg::new("fail-on-suspects")
                .long("fail-on-suspects")
                .action(ArgAction::SetTrue)
                .help("Exit with 1 when there is any suspect"),
        )
        .arg(
            Arg::new("columns")
                .long("columns")
                .value_name("OUT")
                .value_parser(value_parser!(PathBuf))
                .help("Also write distance, dominator, retained and shallow size of every node, for other programs"),
        )
}

/// Runs it.
pub fn run(matches: &ArgMatches, session: &mut Session<'_>) -> Result<Exit, Failure> {
    work_for_parent(matches)?;
    let Some(file) = matches.get_one::<PathBuf>("file") else { return Ok(Exit::Usage) };
    let mut request = request(matches);
    request.paths = matches.get_many::<u32>("path").into_iter().flatten().copied().collect();
    request.classes = matches.get_many::<String>("class").into_iter().flatten().cloned().collect();
    let (snapshot, graph) = session.open(file, matches, request.parallelism)?;
    if let Some(out) = matches.get_one::<PathBuf>("columns") {
        write_columns(out, &snapshot, &graph)
            .map_err(|error| Failure::Output(out.clone(), error))?;
    }
    let name = file.display().to_string();
    let findings = beside::findings(file);
    let analysis = analyse(&name, &snapshot, &graph, &request, &findings, &mut |stage| {
        session.progress(stage.name())
    });
    // The columns are not needed to write the report.
    drop(graph);
    drop(snapshot);
    let suspicious = !analysis.suspects.is_empty();
    session.report(matches, &Report::Analysis(analysis))?;
    Ok(if suspicious && matches.get_flag("fail-on-suspects") { Exit::FailOn } else { Exit::Done })
}

/// `@123` or `123`.
fn parse_id(text: &str) -> Result<u32, String> {
    let digits = text.strip_prefix('@').unwrap_or(text);
    digits.parse().map_err(|_| format!("expected a node id like @123, got {text:?}"))
}
