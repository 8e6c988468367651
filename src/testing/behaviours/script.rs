mod parse;

pub use parse::ScriptError;

use super::{Behaviour, listen};
use crate::Boxed;
use crate::runtime::{AsyncStd, Runtime};
use crate::testing::{Ending, Peer, Seen};
use std::fmt;
use std::time::Duration;

/// Does what a small text says, one step a line.
///
/// | step | what it does |
/// |---|---|
/// | `expect "PING\r\n"` | these bytes, and no others, come next; they may come in pieces |
/// | `skip 4k` | reads so many bytes, whatever they are; a size has a unit: `b`, `k`, `m` or `g` |
/// | `send "+PONG\r\n"` | sends these bytes |
/// | `wait 200ms` | does nothing for so long, and reads nothing either |
/// | `fin` | ends the sending; reading goes on |
/// | `drain` | reads until the other ends its sending |
/// | `close` | closes cleanly, as the end of the text does; bytes that nobody has read make the system reset |
/// | `reset` | waits until all that was sent is delivered, and breaks the connection off |
///
/// Between quotes, `\r \n \t \0 \\ \"` and `\x00` to `\xff` are one byte each. Blank lines mean nothing, nor does what
/// follows a `#` outside of quotes. Every connection begins at the first line.
///
/// Where something else comes than what is expected, the connection is reset and [`Seen::unmet`] says where and why. If
/// it breaks off during any other step, the script ends there.
///
/// ```
/// use trunkline::testing::behaviours::Script;
///
/// let script: Script = "send \"220 ready\\r\\n\"  # speaks first\ndrain".parse()?;
/// let error = "send \"220 ready\ndrain".parse::<Script>().unwrap_err();
/// assert_eq!(error.to_string(), "line 1: the text has no end; close it with a \"");
/// # Ok::<(), trunkline::testing::behaviours::ScriptError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Script {
    steps: Vec<Line>,
}

/// A step, and the line that it is written on.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Line {
    number: usize,
    step: Step,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Step {
    Expect(Vec<u8>),
    Skip(usize),
    Send(Vec<u8>),
    Wait(Duration),
    Fin,
    Drain,
    Close,
    Reset,
}

/// What a script expected, and what came instead.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unmet {
    /// The line of the script, from 1.
    pub line: usize,
    /// What should have come.
    pub expected: String,
    /// What came.
    pub got: String,
}

impl fmt::Display for Unmet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: expected {}, got {}", self.line, self.expected, self.got)
    }
}

impl Behaviour for Script {
    fn run<'a>(&'a self, peer: Peer) -> Boxed<'a, Seen> {
        Box::pin(async move {
            let mut play = Play { seen: peer.seen(), peer, ahead: Vec::new() };
            for Line { number, step } in &self.steps {
                if matches!(step, Step::Close) {
                    break;
                }
                if !play.step(*number, step).await {
                    // The peer is dropped, and so the connection is reset.
                    return play.seen;
                }
            }
            play.peer.close();
            play.seen
        })
    }
}

/// A connection on which a script is played.
struct Play {
    peer: Peer,
    seen: Seen,
    /// Has come, and no step has asked for it yet.
    ahead: Vec<u8>,
}

impl Play {
    /// False if the script ends here, by a reset.
    async fn step(&mut self, line: usize, step: &Step) -> bool {
        match step {
            Step::Expect(bytes) => self.expect(line, bytes).await,
            Step::Skip(count) => self.skip(line, *count).await,
            Step::Send(bytes) => match self.peer.try_send(bytes).await {
                Ok(()) => true,
                Err(error) => {
                    self.seen.ending = Ending::from(&error);
                    false
                }
            },
            Step::Wait(time) => {
                AsyncStd.sleep(*time).await;
                true
            }
            Step::Fin => {
                self.peer.fin();
                true
            }
            Step::Drain => {
                self.ahead.clear();
                listen(&mut self.peer, &mut self.seen, u64::MAX).await;
                self.seen.ending == Ending::Fin
            }
            Step::Close => true,
            Step::Reset => {
                self.peer.delivered().await;
                false
            }
        }
    }

    async fn expect(&mut self, line: usize, bytes: &[u8]) -> bool {
        loop {
            let same = self.ahead.iter().zip(bytes).take_while(|(came, byte)| came == byte).count();
            if same == bytes.len() {
                self.ahead.drain(..same);
                return true;
            }
            let differs = same < self.ahead.len();
            if differs || !self.recv().await {
                let came = quote(&self.ahead, same);
                let got = match (differs, self.ahead.is_empty()) {
                    (true, _) => came,
                    (false, true) => self.ending().to_string(),
                    (false, false) => format!("{came} and then {}", self.ending()),
                };
                self.seen.unmet = Some(Unmet { line, expected: quote(bytes, same), got });
                return false;
            }
        }
    }

    async fn skip(&mut self, line: usize, count: usize) -> bool {
        let mut left = count;
        loop {
            let read = left.min(self.ahead.len());
            self.ahead.drain(..read);
            left -= read;
            if left == 0 {
                return true;
            }
            if !self.recv().await {
                let got = format!("{} and then {}", count - left, self.ending());
                self.seen.unmet = Some(Unmet { line, expected: format!("{count} bytes"), got });
                return false;
            }
        }
    }

    /// Receives once; false if nothing can come any more.
    async fn recv(&mut self) -> bool {
        match self.peer.try_recv().await {
            Ok(Some(bytes)) => {
                self.seen.add(&bytes);
                self.ahead.extend_from_slice(&bytes);
                return true;
            }
            Ok(None) => self.seen.ending = Ending::Fin,
            Err(error) => self.seen.ending = Ending::from(&error),
        }
        false
    }

    fn ending(&self) -> &'static str {
        match self.seen.ending {
            Ending::Reset(_) => "a reset",
            Ending::Fin | Ending::Open => "the end of the stream",
        }
    }
}

/// Bytes as a script writes them; of many, those around the place that matters.
fn quote(bytes: &[u8], place: usize) -> String {
    const BEFORE: usize = 16;
    const SHOWN: usize = 64;
    let start = place.saturating_sub(BEFORE).min(bytes.len());
    let end = start.saturating_add(SHOWN).min(bytes.len());
    let before = if start > 0 { "... " } else { "" };
    let after = if end < bytes.len() { " ..." } else { "" };
    format!("{before}\"{}\"{after}", bytes[start..end].escape_ascii())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{block_on, pair};

    #[test]
    fn a_test_that_asks_for_the_outcome_of_a_script_that_was_not_met_fails_with_the_line() {
        use crate::testing::{FakeBackend, FakeClient, behaviours::HalfClose};
        let backend = FakeBackend::script("expect \"PING\"\nsend \"+PONG\"").listen();
        let seen = block_on(FakeClient::run(backend.address(), &HalfClose(b"QUIT".to_vec())));
        assert!(seen.ending.is_reset());
        let asked = std::panic::AssertUnwindSafe(|| block_on(backend.seen()));
        let panic = std::panic::catch_unwind(asked).expect_err("it was not met");
        let said = panic.downcast_ref::<String>().expect("it says why");
        for part in ["line 1: expected \"PING\", got \"QUIT\"", "behaviours/script.rs:"] {
            assert!(said.contains(part), "{part:?} is not in {said:?}");
        }
    }

    #[test]
    #[should_panic(expected = "wrong in line 2: unknown step \"snd\"")]
    fn a_script_that_is_wrong_names_its_line() {
        crate::testing::FakeBackend::script("fin\nsnd");
    }

    /// Plays a script against somebody who sends these words and ends its sending.
    fn play(script: &str, words: &str) -> (Seen, Seen) {
        let script: Script = script.parse().expect("a script");
        let (ours, theirs) = pair(1 << 10);
        let mut other = Peer::new("the other", ours);
        let peer = Peer::new("the script", theirs).patience(None);
        block_on(async {
            other.send(words.as_bytes()).await;
            other.fin();
            futures_lite::future::zip(script.run(peer), other.recv_to_end()).await
        })
    }

    #[test]
    fn the_steps() {
        let check = |script: &str, words: &str, said: &str, ending: Ending| {
            let (seen, heard) = play(script, words);
            assert_eq!(seen.unmet, None, "{script}");
            assert_eq!(seen.ending, ending, "{script}");
            assert_eq!(String::from_utf8_lossy(&heard.bytes), said, "{script}");
            assert_eq!(heard.ending.is_reset(), script.ends_with("reset"), "{script}");
        };
        check(
            "expect \"PI\"\nexpect \"NG\"\nsend \"+PONG\"\nsend \"!\"",
            "PING",
            "+PONG!",
            Ending::Open,
        );
        check("skip 3b\nexpect \"G\"\ndrain", "PING", "", Ending::Fin);
        check("send \"a\"\nfin\ndrain\nclose", "PING", "a", Ending::Fin);
        check("wait 1ms\nsend \"a\"\nreset", "", "a", Ending::Open);
    }

    #[test]
    fn what_is_not_met_is_told_with_its_line() {
        let check = |script: &str, words: &str, expected: &str| {
            let (seen, heard) = play(script, words);
            assert_eq!(seen.unmet.expect(script).to_string(), expected);
            assert!(heard.ending.is_reset(), "{script}");
        };
        check("# first\n\nexpect \"PING\"", "QUIT", "line 3: expected \"PING\", got \"QUIT\"");
        check(
            "expect \"PING\\r\\n\"",
            "PING",
            "line 1: expected \"PING\\r\\n\", got \"PING\" and then the end of the stream",
        );
        check("expect \"a\"", "", "line 1: expected \"a\", got the end of the stream");
        check(
            "skip 1k",
            "abc",
            "line 1: expected 1024 bytes, got 3 and then the end of the stream",
        );
        let long = "x".repeat(100);
        let expected = format!("line 1: expected ... \"{0}a\", got ... \"{0}b\"", "x".repeat(16));
        check(&format!("expect \"{long}a\""), &format!("{long}b"), &expected);
    }
}
