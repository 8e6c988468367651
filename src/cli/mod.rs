//! The command line: one file per command.

mod check;
mod demo;
mod demo_backend;
mod fake;
#[cfg(feature = "faults")]
mod faults;
mod fd_limit;
mod flags;
mod logging;
mod pooling;
mod proxy;
mod signals;
mod supervisor;
mod worker;

use argh::{EarlyExit, FromArgs};
use std::io::{self, Write};
use std::process::ExitCode;

/// Why a command did not do what was asked. The text is one line: what is wrong, and how to mend it.
pub(crate) enum Failure {
    /// What was typed makes no sense: exit code 2.
    Usage(String),
    /// The world did not allow it: exit code 1.
    Runtime(String),
}

/// What a command has done.
pub(crate) type Done = Result<ExitCode, Failure>;

/// Runs the command that `words`, the arguments without the program's name, ask for.
pub(crate) fn run(words: &[String]) -> ExitCode {
    let (code, text) = match dispatch(words) {
        Ok(code) => return code,
        Err(Failure::Usage(text)) => (2, text),
        Err(Failure::Runtime(text)) => (1, text),
    };
    // There is nobody left to tell if even this fails.
    let _ = writeln!(io::stderr(), "trunkline: {text}");
    ExitCode::from(code)
}

fn dispatch(words: &[String]) -> Done {
    match words.first().map(String::as_str) {
        Some("check") => parse("trunkline check", &words[1..], check::run),
        Some("demo") => parse("trunkline demo", &words[1..], demo::run),
        Some("fake") => parse("trunkline fake", &words[1..], fake::run),
        #[cfg(feature = "faults")]
        Some("faults") => parse("trunkline faults", &words[1..], faults::run),
        #[cfg(not(feature = "faults"))]
        Some("faults") => Err(Failure::Usage(
            "this trunkline was built without faults; build it with `--features faults`".into(),
        )),
        Some("--version" | "-V") => say(concat!("trunkline ", env!("CARGO_PKG_VERSION"), "\n")),
        Some("-h") => parse("trunkline", &["--help".into()], proxy::run),
        Some(word) if !word.starts_with('-') && word != "help" => Err(Failure::Usage(format!(
            "unknown command {word:?}; the commands are demo, check, fake and faults, and without one the proxy runs"
        ))),
        _ => parse("trunkline", words, proxy::run),
    }
}

/// Reads the flags of a command and runs it.
fn parse<F: FromArgs>(command: &str, words: &[String], run: impl FnOnce(F) -> Done) -> Done {
    if let Some(first) = comes_first(words) {
        return Err(Failure::Usage(format!("{first:?} comes first: write `trunkline {first}`")));
    }
    let words: Vec<String> = words.iter().flat_map(|word| split_equals(word)).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let path: Vec<&str> = command.split(' ').collect();
    match F::from_args(&path, &words) {
        Ok(flags) => run(flags),
        Err(EarlyExit { output, status: Ok(()) }) => say(&output),
        Err(EarlyExit { output, status: Err(()) }) => {
            let what: Vec<&str> = output.split_whitespace().collect();
            let what = what.join(" ");
            let what = what.trim_end_matches('.');
            Err(Failure::Usage(format!("{what}; `{command} --help` lists the flags")))
        }
    }
}

/// A word that stands behind others and means something only before them. What follows a flag may be its value.
fn comes_first(words: &[String]) -> Option<&String> {
    let mut before = "";
    words.iter().find(|word| {
        let value = before.starts_with("--") && !before.contains('=');
        before = word.as_str();
        match word.as_str() {
            "--version" | "-V" => true,
            "check" | "demo" | "fake" | "faults" => !value,
            _ => false,
        }
    })
}

/// `--flag=value`, which argh does not take, as the two words that it does.
fn split_equals(word: &str) -> Vec<String> {
    match word.split_once('=') {
        Some((flag, value)) if flag.starts_with("--") => vec![flag.into(), value.into()],
        _ => vec![word.to_string()],
    }
}

/// Prints what was asked for.
fn say(text: &str) -> Done {
    match io::stdout().write_all(text.as_bytes()).and_then(|()| io::stdout().flush()) {
        // A reader that has seen enough (`trunkline check | head -1`) is no failure.
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(Failure::Runtime(format!("cannot write to stdout: {error}")))
        }
        _ => Ok(ExitCode::SUCCESS),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_comes_first_unless_it_is_a_value() {
        let check = |words: &str, expected: Option<&str>| {
            let words: Vec<String> = words.split(' ').map(String::from).collect();
            assert_eq!(comes_first(&words).map(String::as_str), expected, "{words:?}");
        };
        check("--tick 1s check", Some("check"));
        check("fake", Some("fake"));
        check("--tick=1s demo", Some("demo"));
        check("--once -V", Some("-V"));
        check("--say fake --tick 1s", None);
    }

    #[test]
    fn equals_is_split_once_and_only_for_flags() {
        let check = |word: &str, expected: &[&str]| assert_eq!(split_equals(word), expected);
        check("--listen=127.0.0.1:1", &["--listen", "127.0.0.1:1"]);
        check("--log-file=a=b", &["--log-file", "a=b"]);
        check("unix:/a=b", &["unix:/a=b"]);
        check("--help", &["--help"]);
    }
}
