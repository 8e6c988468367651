//! What can go wrong with a direction of a connection, and when.

use crate::{ConnId, Side};
use std::time::Duration;

/// A fault that stands between a reader and a writer, with Toxiproxy's names and meanings.
///
/// ```
/// use std::time::Duration;
/// use trunkline::Side;
/// use trunkline::testing::faults::{Fault, Toxic};
///
/// // The replies of the second connection break off behind their tenth byte.
/// let toxic = Toxic::new(Fault::ResetPeer { timeout: Duration::ZERO }).on_connection(2).after_bytes(10);
/// assert_eq!((toxic.name.as_str(), toxic.towards), ("reset_peer_downstream", Side::Client));
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Toxic {
    /// Its name among the toxics of its proxy.
    pub name: String,
    /// The side whose bytes it meets on their way: `Client` is what Toxiproxy calls downstream.
    pub towards: Side,
    /// The probability that a connection meets it, drawn once for each; 1 is always.
    pub toxicity: f64,
    /// The one connection that meets it, by its number in the proxy; `None` is every one.
    pub on_connection: Option<u64>,
    /// How many bytes of its direction pass untouched, counted from the connection's first.
    pub after_bytes: u64,
    /// What it does.
    pub fault: Fault,
}

/// What a [`Toxic`] does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Holds every byte back for `latency`, give or take up to `jitter`; the order is kept.
    Latency {
        /// The least, on the average.
        latency: Duration,
        /// How much more or less it may be.
        jitter: Duration,
    },
    /// Passes at most so many bytes in a second.
    Bandwidth {
        /// Thousands of bytes per second; 0 passes nothing.
        rate: u64,
    },
    /// Holds back the end of the stream.
    SlowClose {
        /// For how long.
        delay: Duration,
    },
    /// Drops everything, and closes the connection after a time. As bytes are lost by then, so does removing it.
    Timeout {
        /// Zero is never.
        timeout: Duration,
    },
    /// Resets the connection some time after the first byte that it meets; with
    /// [`after_bytes`](Toxic::after_bytes) behind the last byte that passes, which is delivered first.
    ResetPeer {
        /// How long after.
        timeout: Duration,
    },
    /// Passes the bytes in small pieces, whose lengths depend on nothing but the seed and the place in the stream.
    Slicer {
        /// Bytes in a piece, on the average.
        average_size: u64,
        /// How many more or less it may be.
        size_variation: u64,
        /// The rest after each piece.
        delay: Duration,
    },
    /// Closes the connection once so many bytes have passed, all of which are delivered.
    LimitData {
        /// How many.
        bytes: u64,
    },
    /// Nothing; Toxiproxy has it for those who try their tools.
    Noop,
}

impl Fault {
    /// Its name in Toxiproxy's API.
    pub fn name(&self) -> &'static str {
        match self {
            Fault::Latency { .. } => "latency",
            Fault::Bandwidth { .. } => "bandwidth",
            Fault::SlowClose { .. } => "slow_close",
            Fault::Timeout { .. } => "timeout",
            Fault::ResetPeer { .. } => "reset_peer",
            Fault::Slicer { .. } => "slicer",
            Fault::LimitData { .. } => "limit_data",
            Fault::Noop => "noop",
        }
    }
}

impl Toxic {
    /// A toxic on the replies of every connection, named as Toxiproxy would: `latency_downstream`, say.
    pub fn new(fault: Fault) -> Toxic {
        let (towards, toxicity) = (Side::Client, 1.0);
        let name = default_name(&fault, towards);
        Toxic { name, towards, toxicity, on_connection: None, after_bytes: 0, fault }
    }

    /// The same by another name.
    #[must_use]
    pub fn named(mut self, name: impl Into<String>) -> Toxic {
        self.name = name.into();
        self
    }

    /// On the bytes that go to this side; a name that was not chosen changes with it.
    #[must_use]
    pub fn towards(mut self, side: Side) -> Toxic {
        if self.name == default_name(&self.fault, self.towards) {
            self.name = default_name(&self.fault, side);
        }
        self.towards = side;
        self
    }

    /// With this probability on each connection.
    #[must_use]
    pub fn toxicity(mut self, toxicity: f64) -> Toxic {
        self.toxicity = toxicity;
        self
    }

    /// On the proxy's n-th connection alone, counted from 1, since the proxy was made or all was
    /// [reset](super::Faults::reset).
    #[must_use]
    pub fn on_connection(mut self, number: u64) -> Toxic {
        self.on_connection = Some(number);
        self
    }

    /// Only behind so many bytes of its direction.
    #[must_use]
    pub fn after_bytes(mut self, bytes: u64) -> Toxic {
        self.after_bytes = bytes;
        self
    }
}

/// Toxiproxy's words for the two directions.
pub(super) fn stream(towards: Side) -> &'static str {
    match towards {
        Side::Backend => "upstream",
        Side::Client => "downstream",
    }
}

fn default_name(fault: &Fault, towards: Side) -> String {
    format!("{}_{}", fault.name(), stream(towards))
}

/// Draws that depend on nothing but the seed, the proxy, the connection's number, the toxic and a place in the stream:
/// whoever draws twice draws the same.
#[derive(Clone, Copy, Debug)]
pub(super) struct Dice(u64);

impl Dice {
    pub(super) fn new(seed: u64, proxy: &str, conn: ConnId, toxic: &Toxic) -> Dice {
        // FNV-1a: the standard hasher may change with the compiler, and a seed must mean the same next year.
        let mut hash = 0xcbf2_9ce4_8422_2325_u64;
        let mut add = |bytes: &[u8]| {
            for byte in bytes {
                hash = (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
            }
        };
        add(&seed.to_le_bytes());
        add(&conn.number().to_le_bytes());
        for name in [proxy, &toxic.name, stream(toxic.towards)] {
            add(&(name.len() as u64).to_le_bytes());
            add(name.as_bytes());
        }
        Dice(hash)
    }

    /// Whether the connection meets the toxic.
    pub(super) fn meets(self, toxicity: f64) -> bool {
        // Not at any place in the stream: the numbers there are even.
        fastrand::Rng::with_seed(self.0 ^ 1).f64() < toxicity
    }

    /// A whole number from 0 to `most`, for the byte at `offset`.
    pub(super) fn roll(self, offset: u64, most: u64) -> u64 {
        // The generator mixes its seed too little for neighbours to differ in the first number.
        let place = offset.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15) & !1;
        let mut rng = fastrand::Rng::with_seed(self.0.wrapping_add(place));
        rng.u64(..);
        rng.u64(..=most)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LATENCY: Fault = Fault::Latency { latency: Duration::ZERO, jitter: Duration::ZERO };

    fn dice(seed: u64, proxy: &str, conn: u64, name: &str) -> Dice {
        Dice::new(seed, proxy, ConnId::from(conn), &Toxic::new(LATENCY).named(name))
    }

    fn rolls(dice: Dice) -> Vec<u64> {
        (0..20).map(|offset| dice.roll(offset, u64::MAX)).collect()
    }

    #[test]
    fn a_draw_depends_on_all_that_it_should_and_on_nothing_else() {
        let base = rolls(dice(7, "redis", 1, "a"));
        assert_eq!(base, rolls(dice(7, "redis", 1, "a")));
        for other in [
            dice(8, "redis", 1, "a"),
            dice(7, "redi", 1, "sa"),
            dice(7, "redis", 2, "a"),
            dice(7, "redis", 1, "b"),
        ] {
            assert!(rolls(other).iter().zip(&base).all(|(one, two)| one != two));
        }
    }

    #[test]
    fn draws_are_spread_over_the_whole_range() {
        let dice = dice(1, "p", 1, "t");
        let drawn: Vec<u64> = (0..2000).map(|offset| dice.roll(offset, 9)).collect();
        for number in 0..=9 {
            let count = drawn.iter().filter(|drawn| **drawn == number).count();
            assert!((140..=260).contains(&count), "{number} came {count} times of 2000");
        }
        let met = (0..2000).filter(|conn| self::dice(1, "p", *conn, "t").meets(0.25)).count();
        assert!((430..=570).contains(&met), "{met} of 2000");
    }

    #[test]
    fn toxicity_0_meets_nobody_and_1_meets_all() {
        for conn in 0..2000 {
            let dice = dice(1, "p", conn, "t");
            assert!(!dice.meets(0.0) && dice.meets(1.0));
        }
    }

    #[test]
    fn a_name_that_was_not_chosen_says_the_direction() {
        let name = |toxic: Toxic| toxic.towards(Side::Backend).name;
        assert_eq!(name(Toxic::new(LATENCY)), "latency_upstream");
        assert_eq!(name(Toxic::new(LATENCY).named("slow")), "slow");
    }
}
