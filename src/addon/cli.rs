//! The command line as one native call.

use napi_derive::napi;

/// Runs the command line on this process' stdout and stderr and returns its exit code.
#[napi(js_name = "cli")]
pub fn run_cli(args: Vec<String>) -> i32 {
    crate::cli::run(&args, &mut std::io::stdout().lock(), &mut std::io::stderr().lock())
}
