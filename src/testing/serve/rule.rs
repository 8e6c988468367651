//! Which reply meets which fault, and how a person writes it.

use crate::units::{duration, show_duration, show_size, size};
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// A fault, and the replies that meet it. Written `3:drop`: the third of each connection; or `every-3:drop`.
///
/// ```
/// use trunkline::testing::serve::{ReplyFault, Rule, Which};
///
/// let rule: Rule = "7:split=2b".parse()?;
/// assert_eq!(rule.which, Which::Nth(7));
/// assert!(matches!(rule.fault, ReplyFault::Split { after: 2, .. }));
/// assert!("7:slit=2b".parse::<Rule>().unwrap_err().starts_with("\"slit\" is not a fault; use drop,"));
/// # Ok::<(), String>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// The replies.
    pub which: Which,
    /// What happens to them.
    pub fault: ReplyFault,
}

/// Replies of one connection, counted from 1. What the client is not to see, such as the reply to a `noreply`, is none;
/// nor is a `100 Continue`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Which {
    /// This one.
    Nth(u64),
    /// This one, and so on at the same distance. 0 is no reply.
    Every(u64),
}

/// What happens to one reply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReplyFault {
    /// It does not come.
    Drop,
    /// It comes so much later, and so do all behind it.
    Delay(Duration),
    /// It comes twice.
    Duplicate,
    /// It comes behind the next reply. A client that sends no other request before it has this one's reply waits for
    /// ever, or until it ends its sending.
    Swap,
    /// After so many of its bytes there is a pause.
    Split {
        /// How many bytes.
        after: usize,
        /// How long.
        pause: Duration,
    },
    /// In its place comes the protocol's own error for a request that is too large, and the request is not carried out.
    /// Where there is no such error, no reply comes.
    /// It comes as soon as the request has begun: if that is longer than [`WHOLE`](crate::framing::WHOLE) or is held back
    /// by `Expect`, its body has not been read. What the error leaves open (memcached, Redis) goes on behind the body, and
    /// what it closes (HTTP) is closed with the body unread.
    Error,
    /// After so many of its bytes the connection is closed cleanly.
    Cut {
        /// How many bytes; if the reply has fewer, all of them.
        after: usize,
    },
    /// After so many of its bytes, which are delivered, the connection is broken off.
    Reset {
        /// How many bytes; if the reply has fewer, all of them.
        after: usize,
    },
}

/// How long a split waits, unless it is said.
const PAUSE: Duration = Duration::from_millis(100);

impl Which {
    /// Whether the reply of this number is among them.
    pub fn has(self, number: u64) -> bool {
        match self {
            Which::Nth(n) => n == number,
            Which::Every(n) => n > 0 && number.is_multiple_of(n),
        }
    }
}

impl FromStr for Which {
    type Err = String;

    fn from_str(text: &str) -> Result<Which, String> {
        let (digits, which): (&str, fn(u64) -> Which) = match text.strip_prefix("every-") {
            Some(digits) => (digits, Which::Every),
            None => (text, Which::Nth),
        };
        match digits.parse() {
            Ok(n) if n > 0 && !digits.starts_with('+') => Ok(which(n)),
            _ => Err(format!("{text:?} names no reply; write 3, or every-3, counted from 1")),
        }
    }
}

impl fmt::Display for Which {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Which::Nth(n) => write!(f, "{n}"),
            Which::Every(n) => write!(f, "every-{n}"),
        }
    }
}

impl FromStr for ReplyFault {
    type Err = String;

    fn from_str(text: &str) -> Result<ReplyFault, String> {
        let (name, value) = match text.split_once('=') {
            Some((name, value)) => (name, Some(value)),
            None => (text, None),
        };
        let alone = |fault| match value {
            None => Ok(fault),
            Some(value) => Err(format!("{name} has no value; write {name} without ={value}")),
        };
        let needed = |example| {
            value.ok_or_else(|| format!("{name} has no value; write for example {name}={example}"))
        };
        let after = |text: &str| size(text).map_err(|error| format!("{name}: {error}"));
        let time = |text: &str| duration(text).map_err(|error| format!("{name}: {error}"));
        Ok(match name {
            "drop" => alone(ReplyFault::Drop)?,
            "duplicate" => alone(ReplyFault::Duplicate)?,
            "swap" => alone(ReplyFault::Swap)?,
            "error" => alone(ReplyFault::Error)?,
            "delay" => ReplyFault::Delay(time(needed("200ms")?)?),
            "cut" => ReplyFault::Cut { after: after(needed("2b")?)? },
            "reset" => ReplyFault::Reset { after: after(needed("2b")?)? },
            "split" => match needed("2b")?.split_once(',') {
                Some((bytes, pause)) => {
                    ReplyFault::Split { after: after(bytes)?, pause: time(pause)? }
                }
                None => ReplyFault::Split { after: after(needed("2b")?)?, pause: PAUSE },
            },
            _ => {
                return Err(format!(
                    "{name:?} is not a fault; use drop, delay=TIME, duplicate, swap, split=SIZE[,TIME], error, cut=SIZE or reset=SIZE"
                ));
            }
        })
    }
}

impl fmt::Display for ReplyFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ReplyFault::Drop => f.write_str("drop"),
            ReplyFault::Delay(time) => write!(f, "delay={}", show_duration(*time)),
            ReplyFault::Duplicate => f.write_str("duplicate"),
            ReplyFault::Swap => f.write_str("swap"),
            ReplyFault::Split { after, pause } => {
                write!(f, "split={},{}", show_size(*after), show_duration(*pause))
            }
            ReplyFault::Error => f.write_str("error"),
            ReplyFault::Cut { after } => write!(f, "cut={}", show_size(*after)),
            ReplyFault::Reset { after } => write!(f, "reset={}", show_size(*after)),
        }
    }
}

impl FromStr for Rule {
    type Err = String;

    fn from_str(text: &str) -> Result<Rule, String> {
        let Some((which, fault)) = text.split_once(':') else {
            return Err(format!("{text:?} has no fault; write for example 3:drop"));
        };
        Ok(Rule { which: which.parse()?, fault: fault.parse()? })
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.which, self.fault)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn every_rule_is_shown_as_it_is_written() {
        let check = |text: &str, which: Which, fault: ReplyFault| {
            let rule = Rule { which, fault };
            assert_eq!(text.parse(), Ok(rule.clone()), "{text}");
            assert_eq!(rule.to_string().parse(), Ok(rule), "{text}");
        };
        let ms = Duration::from_millis;
        check("3:drop", Which::Nth(3), ReplyFault::Drop);
        check("every-2:duplicate", Which::Every(2), ReplyFault::Duplicate);
        check("1:delay=200ms", Which::Nth(1), ReplyFault::Delay(ms(200)));
        check("1:swap", Which::Nth(1), ReplyFault::Swap);
        check("1:split=2b", Which::Nth(1), ReplyFault::Split { after: 2, pause: PAUSE });
        check("1:split=1k,5ms", Which::Nth(1), ReplyFault::Split { after: 1024, pause: ms(5) });
        check("1:error", Which::Nth(1), ReplyFault::Error);
        check("1:cut=0b", Which::Nth(1), ReplyFault::Cut { after: 0 });
        check("every-1:reset=7b", Which::Every(1), ReplyFault::Reset { after: 7 });
    }

    #[test]
    fn what_is_wrong_is_said_with_the_right_form() {
        let check = |text: &str, part: &str| {
            let error = text.parse::<Rule>().expect_err(text);
            assert!(error.contains(part) && !error.contains('\n'), "{text}: {error}");
        };
        check("", "has no fault; write for example 3:drop");
        check("drop", "has no fault; write for example 3:drop");
        check("0:drop", "\"0\" names no reply; write 3, or every-3");
        check("third:drop", "names no reply");
        check("+3:drop", "names no reply");
        check("every-0:drop", "names no reply");
        check("3:", "\"\" is not a fault; use drop, delay=TIME");
        check("3:lose", "\"lose\" is not a fault");
        check("3:drop=1", "drop has no value; write drop without =1");
        check("3:delay", "delay has no value; write for example delay=200ms");
        check("3:delay=200", "delay: \"200\" has no unit; write 200ms");
        check("3:split=2", "split: \"2\" has no unit; write 2b");
        check("3:split=2b,5", "split: \"5\" has no unit");
        check("3:cut", "cut has no value; write for example cut=2b");
        check("3:reset=x", "reset: \"x\" does not start with a number");
    }

    #[test]
    fn every_is_a_distance() {
        let numbers = |which: Which| (0..8).filter(|n| which.has(*n)).collect::<Vec<_>>();
        assert_eq!(numbers(Which::Nth(3)), [3]);
        assert_eq!(numbers(Which::Every(3)), [0, 3, 6]);
        assert_eq!(numbers(Which::Every(0)), [0; 0]);
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "(every-)?[0-9]{0,3}:?(drop|split|delay|cut)?=?[0-9a-z,]{0,6}|.*") {
            if let Ok(rule) = text.parse::<Rule>() {
                prop_assert_eq!(rule.to_string().parse(), Ok(rule));
            }
        }
    }
}
