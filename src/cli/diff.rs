//! `leakguard diff A B [C]`.

use std::path::{Path, PathBuf};

use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};

use super::beside;
use super::run::{Exit, Failure, Session, parse_size, report_args, request, work_for_parent};
use crate::heap::Error;
use crate::heap::analysis::{compare, earlier, has_graph};
use crate::report::{Identity, IdentityMode, Report};

/// Its arguments.
pub fn command() -> Command {
    Command::new("diff")
        .about("Names what grew between two or three heap snapshots of one app, oldest first")
        .arg(
            Arg::new("files")
                .value_name("FILE")
                .required(true)
                .num_args(2..=3)
                .value_parser(value_parser!(PathBuf)),
        )
        .arg(
            Arg::new("by")
                .long("by")
                .value_name("WAY")
                .value_parser(["node-ids", "signatures"])
                .help("How to recognise objects; default: what the guard's files say, else what the snapshots show"),
        )
        .args(report_args())
        .arg(
            Arg::new("fail-on-suspects")
                .long("fail-on-suspects")
                .action(ArgAction::SetTrue)
                .help("Exit with 1 when anything grew that looks like a leak"),
        )
        .arg(
            Arg::new("fail-on-growth")
                .long("fail-on-growth")
                .value_name("SIZE")
                .value_parser(parse_size)
                .help("Exit with 1 when the heap grew by more than this, like 10MB"),
        )
}

/// Runs it.
pub fn run(matches: &ArgMatches, session: &mut Session<'_>) -> Result<Exit, Failure> {
    work_for_parent(matches)?;
    let files: Vec<&PathBuf> = matches.get_many::<PathBuf>("files").into_iter().flatten().collect();
    let Some((last_file, earlier_files)) = files.split_last() else { return Ok(Exit::Usage) };
    let request = request(matches);
    let mut before = Vec::new();
    for file in earlier_files {
        let (snapshot, graph) = session.open(file, matches, request.parallelism)?;
        require_graph(file, &snapshot)?;
        session.progress("summing up");
        before.push(earlier(&file.display().to_string(), &snapshot, &graph));
    }
    let (snapshot, graph) = session.open(last_file, matches, request.parallelism)?;
    require_graph(last_file, &snapshot)?;
    session.progress("comparing");
    let paths: Vec<&Path> = files.iter().map(|file| file.as_path()).collect();
    let stated = asked_identity(matches).or_else(|| beside::stated_identity(&paths));
    let mut findings = Vec::new();
    for path in &paths {
        for finding in beside::findings(path) {
            if !findings.contains(&finding) {
                findings.push(finding);
            }
        }
    }
    let name = last_file.display().to_string();
    let comparison = compare(&name, &snapshot, &graph, before, stated, &request, &findings);
    let Some(comparison) = comparison else { return Ok(Exit::Usage) };
    drop(graph);
    drop(snapshot);
    let suspicious = !comparison.suspects.is_empty();
    let growth = comparison.growth_bytes;
    session.report(matches, &Report::Comparison(comparison))?;
    let too_much = matches
        .get_one::<u64>("fail-on-growth")
        .is_some_and(|&limit| u64::try_from(growth).is_ok_and(|growth| growth > limit));
    let failed = too_much || (suspicious && matches.get_flag("fail-on-suspects"));
    Ok(if failed { Exit::FailOn } else { Exit::Done })
}

/// `--by`.
fn asked_identity(matches: &ArgMatches) -> Option<Identity> {
    let by = match matches.get_one::<String>("by")?.as_str() {
        "node-ids" => IdentityMode::NodeIds,
        _ => IdentityMode::Signatures,
    };
    Some(Identity { by, reason: "asked for with --by".to_owned() })
}

/// A file that is cut before its strings can be analysed for its sizes, but not compared.
fn require_graph(file: &Path, snapshot: &crate::heap::Snapshot) -> Result<(), Failure> {
    if has_graph(snapshot) {
        return Ok(());
    }
    let error = Error::Malformed {
        offset: snapshot.text_bytes,
        expected: "edges, without which a snapshot cannot be compared,".to_owned(),
    };
    Err(Failure::Input(file.to_path_buf(), error))
}
