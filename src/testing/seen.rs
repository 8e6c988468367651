//! What one end of a connection saw.

use super::behaviours::Unmet;
use super::deadline::show;
use std::fmt;
use std::io::{self, ErrorKind};
use std::panic::Location;

/// What came in at one end, and how it ended.
#[derive(Clone, PartialEq, Eq)]
pub struct Seen {
    /// The bytes. A behaviour keeps only the first of them: see [`Peer::keeping`](super::Peer::keeping).
    pub bytes: Vec<u8>,
    /// How many came in all.
    pub count: u64,
    /// How it ended.
    pub ending: Ending,
    /// Why a [`Script`](super::behaviours::Script) broke it off, if one did.
    pub unmet: Option<Unmet>,
    /// How many bytes are kept.
    room: usize,
}

/// How the stream that came from the other end ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Ending {
    /// It had not ended when this end left.
    #[default]
    Open,
    /// The other end ended its sending: everything is here.
    Fin,
    /// It broke off.
    Reset(ErrorKind),
}

impl Ending {
    /// It broke off, by whatever error the system tells it.
    pub fn is_reset(self) -> bool {
        matches!(self, Ending::Reset(_))
    }
}

impl From<&io::Error> for Ending {
    fn from(error: &io::Error) -> Self {
        Ending::Reset(error.kind())
    }
}

impl Seen {
    /// What a behaviour keeps unless it is told otherwise, so that a gigabyte can be sent through it.
    pub const KEPT: usize = 1 << 20;

    /// Nothing yet; of the bytes that come, this many will be kept.
    pub fn keeping(room: usize) -> Seen {
        Seen { bytes: Vec::new(), count: 0, ending: Ending::Open, unmet: None, room }
    }

    /// Counts these bytes, and keeps them if there is room.
    pub fn add(&mut self, bytes: &[u8]) {
        let room = self.room.saturating_sub(self.bytes.len());
        self.bytes.extend_from_slice(&bytes[..bytes.len().min(room)]);
        self.count += bytes.len() as u64;
    }

    /// Gives this to a test, unless a script was not met: that is the test's failure.
    pub(crate) fn met(self, who: &str, place: &Location<'_>) -> Seen {
        match &self.unmet {
            Some(unmet) => panic!("the script of {who}, waited for at {place}: {unmet}"),
            None => self,
        }
    }
}

impl fmt::Debug for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Seen({} in all, kept {}; {:?}", self.count, show(&self.bytes), self.ending)?;
        if let Some(unmet) = &self.unmet {
            write!(f, "; {unmet}")?;
        }
        f.write_str(")")
    }
}
