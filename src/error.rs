//! What can stop a proxy from starting or running. A peer that leaves is not an error; see [`Ended`](crate::Ended).

use crate::Endpoint;
use crate::units::show_error;
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
    /// A socket that was handed over to be accepted on, and cannot be.
    Inherited(io::Error),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Config(text) => f.write_str(text),
            Error::Listen { endpoint, source } => {
                write!(f, "cannot listen on {endpoint}: {}", show_error(source))
            }
            Error::Inherited(error) => {
                write!(f, "cannot accept on an inherited socket: {}", show_error(error))
            }
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Error::Config(_) => None,
            Error::Listen { source, .. } | Error::Inherited(source) => Some(source),
        }
    }
}
