//! What can stop a proxy from starting or running. A peer that leaves is not an error; see [`Ended`](crate::Ended).

use crate::Endpoint;
use std::fmt;
use std::io;

/// Why a proxy did not start.
#[derive(Debug)]
pub enum Error {
    /// A setting, or two that contradict each other; the text names them.
    Config(String),
    /// An address that could not be listened on.
    Listen {
        /// The address.
        endpoint: Endpoint,
        /// What the system said.
        source: io::Error,
    },
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Config(text) => f.write_str(text),
            Error::Listen { endpoint, source } => {
                write!(f, "cannot listen on {endpoint}: {}", describe(source))
            }
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Error::Config(_) => None,
            Error::Listen { source, .. } => Some(source),
        }
    }
}

/// A system error in words, without the "(os error 98)" that tells a reader nothing.
pub(crate) fn describe(error: &io::Error) -> String {
    let text = error.to_string();
    let words = match text.find(" (os error") {
        Some(end) => &text[..end],
        None => &text,
    };
    let mut letters = words.chars();
    match letters.next() {
        Some(first) => first.to_lowercase().chain(letters).collect(),
        None => "unknown error".to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_system_error_reads_as_a_sentence() {
        let check = |error: io::Error, expected: &str| assert_eq!(describe(&error), expected);
        check(io::Error::from_raw_os_error(98), "address already in use");
        check(io::Error::other("name not known"), "name not known");
        check(io::Error::other(""), "unknown error");
    }
}
