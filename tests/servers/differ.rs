//! The same conversations with two servers, one of them behind the proxy: what comes back is the same, byte for byte.
//!
//! They are drawn at random, always the same ones. A conversation is in batches, each sent in pieces that are cut at
//! random; the next begins when all replies have come. Each uses keys of its own, so that several go on at once, on
//! fewer trunks than there are clients, and still each knows what it must be told.

use super::*;
use fastrand::Rng;
use std::io::{ErrorKind, Read};
use std::net::{Shutdown, TcpStream};
use std::panic::resume_unwind;
use std::thread;

pub(crate) struct Batch {
    pub(crate) bytes: Vec<u8>,
    pub(crate) done: Done,
}

/// When all that is awaited has come.
pub(crate) enum Done {
    /// So many values of Redis since the beginning.
    Values(usize),
    /// These words.
    Says(String),
    /// The server closes.
    Closed,
}

pub(crate) type Talk = Vec<Batch>;

/// What came in return for each batch.
type Heard = Vec<Vec<u8>>;

/// Has these conversations with a server, so many at once.
fn hear(port: u16, talks: &[Talk], at_once: usize) -> Vec<Heard> {
    let share = talks.len().div_ceil(at_once);
    thread::scope(|scope| {
        let talk = |talk: &Talk| converse(port, talk);
        let threads: Vec<_> = talks
            .chunks(share)
            .map(|some| scope.spawn(move || some.iter().map(talk).collect::<Vec<Heard>>()))
            .collect();
        let joined = threads.into_iter().map(|one| one.join());
        joined.flat_map(|one| one.unwrap_or_else(|panic| resume_unwind(panic))).collect()
    })
}

pub(crate) fn converse(port: u16, talk: &[Batch]) -> Heard {
    let mut dice = Rng::with_seed(talk.len() as u64);
    let mut client = TcpStream::connect(("127.0.0.1", port)).expect("it listens");
    client.set_nodelay(true).expect("a socket");
    client.set_read_timeout(Some(PATIENCE)).expect("a socket");
    client.set_write_timeout(Some(PATIENCE)).expect("a socket");
    let (mut heard, mut all, mut values, mut read, mut looked) =
        (Heard::new(), Vec::new(), 0, 0, 0);
    let mut buffer = vec![0; 1 << 16];
    for batch in talk {
        let before = all.len();
        let mut left = &batch.bytes[..];
        // Cut where it is all over, it might be answered by a reset.
        let most = if matches!(batch.done, Done::Closed) { left.len() } else { left.len() / 2 + 1 };
        while !left.is_empty() {
            let piece = left.len().min(if dice.bool() { most } else { dice.usize(1..=most) });
            client.write_all(&left[..piece]).unwrap_or_else(|error| {
                panic!("{error} at {}; heard was {}", shown(left), shown(&all))
            });
            left = &left[piece..];
        }
        if matches!(batch.done, Done::Closed) {
            // Whoever takes it for the beginning of something longer must not wait for the rest. It may be closed already.
            let _ = client.shutdown(Shutdown::Write);
        }
        loop {
            let is_done = match &batch.done {
                Done::Values(due) => {
                    while let Some(end) = value(&all, read) {
                        (values, read) = (values + 1, end);
                    }
                    values >= *due
                }
                Done::Says(words) => {
                    let found = contains(&all[looked.max(before)..], words.as_bytes());
                    // The words may be cut.
                    looked = all.len().saturating_sub(words.len());
                    found
                }
                Done::Closed => false,
            };
            if is_done {
                break;
            }
            match client.read(&mut buffer) {
                Ok(0) if matches!(batch.done, Done::Closed) => break,
                Err(error)
                    if error.kind() == ErrorKind::ConnectionReset
                        && matches!(batch.done, Done::Closed) =>
                {
                    break;
                }
                Ok(came) if came > 0 => all.extend_from_slice(&buffer[..came]),
                ended => panic!(
                    "{ended:?} behind {}; heard was {}",
                    shown(&batch.bytes),
                    shown(&all[before..])
                ),
            }
        }
        heard.push(all[before..].to_vec());
    }
    heard
}

fn contains(bytes: &[u8], words: &[u8]) -> bool {
    bytes.windows(words.len()).any(|part| part == words)
}

/// Where the value of RESP2 or RESP3 ends that begins here.
fn value(bytes: &[u8], at: usize) -> Option<usize> {
    let line = bytes.get(at..)?.windows(2).position(|two| two == b"\r\n")? + at;
    let number = || -> i64 {
        let text = std::str::from_utf8(&bytes[at + 1..line]).ok();
        text.and_then(|text| text.parse().ok()).expect("a length or a count is a number")
    };
    let mut end = line + 2;
    let inside = match bytes[at] {
        b'$' | b'=' | b'!' => {
            end += usize::try_from(number()).map_or(0, |length| length + 2);
            0
        }
        b'*' | b'~' | b'>' => number(),
        b'%' => 2 * number(),
        _ => 0,
    };
    for _ in 0..inside {
        end = value(bytes, end)?;
    }
    (end <= bytes.len()).then_some(end)
}

/// Has them all with both, and compares. `plain` takes away what differs by its nature; `excuse` is asked whether the
/// last batch of a conversation may have been answered otherwise by the proxy: the request, the server and the proxy.
pub(crate) fn same(
    ports: [u16; 2],
    talks: &[Talk],
    at_once: usize,
    plain: fn(&[u8]) -> Vec<u8>,
    excuse: fn(&[u8], &[u8], &[u8]) -> bool,
) {
    let [direct, proxied] = ports.map(|port| hear(port, talks, at_once));
    for (number, talk) in talks.iter().enumerate() {
        for (batch, (asked, (one, other))) in
            talk.iter().zip(direct[number].iter().zip(&proxied[number])).enumerate()
        {
            let [one, other] = [one, other].map(|heard| plain(heard));
            let excused = batch + 1 == talk.len() && excuse(&asked.bytes, &one, &other);
            let alike = one.iter().zip(&other).take_while(|(one, other)| one == other).count();
            assert!(
                one == other || excused,
                "conversation {number}, batch {batch} of {}, from byte {alike} of the replies on:\n  asked {}\n directly {}\n by proxy {}",
                talk.len(),
                shown(&asked.bytes),
                shown(&one[alike..]),
                shown(&other[alike..])
            );
        }
    }
}

fn shown(bytes: &[u8]) -> String {
    const MOST: usize = 1500;
    let end = bytes.len().saturating_sub(MOST).max(MOST.min(bytes.len()));
    let (begin, end) = (&bytes[..bytes.len().min(MOST)], &bytes[end..]);
    format!("{} ... {} ({} bytes)", begin.escape_ascii(), end.escape_ascii(), bytes.len())
}

/// So many requests, one behind the other.
pub(crate) fn several(count: usize, mut next: impl FnMut() -> Vec<u8>) -> Vec<u8> {
    let mut all = Vec::new();
    for _ in 0..count {
        all.extend_from_slice(&next());
    }
    all
}

/// One of them.
pub(crate) fn one<T: Copy>(dice: &mut Rng, of: &[T]) -> T {
    *dice.choice(of).expect("there is a choice")
}

/// A value: empty, short, long, or with bytes that mean something elsewhere; never with a capital letter.
pub(crate) fn bytes(dice: &mut Rng) -> Vec<u8> {
    let length = match dice.u32(0..40) {
        0 => 100_000,
        1..=3 => dice.usize(16_000..20_000),
        4..=6 => 0,
        7..=12 => dice.usize(1..300),
        _ => dice.usize(1..8),
    };
    let odd = dice.u32(0..4) == 0;
    let mut byte = || match dice.u8(0..8) {
        0..5 => dice.u8(b'a'..=b'z'),
        5 => dice.u8(b'0'..=b'9'),
        _ if !odd => b'-',
        _ => one(dice, b"\r\n\0 \"'\\$*+-:\xff\x80"),
    };
    // A long one is not drawn byte by byte: that would take longer than all the rest.
    let drawn: Vec<u8> = (0..length.min(301)).map(|_| byte()).collect();
    drawn.into_iter().cycle().take(length).collect()
}

/// The words of one line of a table, each that is but one small letter replaced.
pub(crate) fn words(line: &str, mut replace: impl FnMut(u8) -> Vec<u8>) -> Vec<Vec<u8>> {
    let word = |word: &str| match word.as_bytes() {
        [letter @ b'a'..=b'z'] => replace(*letter),
        other => other.to_vec(),
    };
    line.split_whitespace().map(word).collect()
}

pub(crate) fn lines(table: &'static str) -> Vec<&'static str> {
    table
        .lines()
        .flat_map(|line| line.split('|'))
        .map(str::trim)
        .filter(|line| !line.is_empty())
        .collect()
}
