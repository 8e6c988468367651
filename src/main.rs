//! The `trunkline` command. What it does is in `cli`; what it is made of, in the library.

mod cli;

use std::process::ExitCode;

fn main() -> ExitCode {
    let words: Vec<String> =
        std::env::args_os().skip(1).map(|word| word.to_string_lossy().into_owned()).collect();
    cli::run(&words)
}
