//! Random commands for memcached, of its text protocol and of its meta commands.

use super::differ::{Batch, Done, Talk, bytes, converse, lines, one, same, several, words};
use super::*;
use fastrand::Rng;

/// A `k`ey, a `n`umber, an e`x`piry that no clock has a say in, `d`ata and its length, `c`as, which is drawn among small
/// numbers, meta `f`lags. Of a data command the data follows. Not here: `decr` and the flag `h`, for memcached writes a
/// number in its old place, with blanks behind it, or anew, as it happens to be sending the old one or not; `flush_all` and
/// what else looks at the clock.
const COMMANDS: &str = "
    set k n x d | set k n x d | set k n x d | add k n x d | replace k n x d | append k 0 0 d | prepend k 0 0 d
    set k n x d noreply | add k n x d noreply | append k 0 0 d noreply | replace k n x d noreply
    get k | get k k k | get k k k k k k k k | gat x k k | touch k x | touch k x noreply | delete k | delete k noreply
    incr k n | incr k n noreply | incr k 18446744073709551615 | delete k 0
    mg k f | mg k f | mg k f | mg k v | mg k | mg k f N0 | mg k s v R30 | mg k v N0 T0 | ms k d f | ms k d f | ms k d
    ms k d T0 F5 | ms k d ME | ms k d MA q | ms k d MR f | ms k d MP | ms k d q | ms k d I | md k | md k f | md k I T0
    ma k | ma k f | ma k N0 J5 v | ma k MI t | ma k MI q | ma k N0 J13 | mn | me | mn | verbosity 0 | version
    nothing | nothing k | GET k | incr k | incr k k | touch k | verbosity | lru_crawler nothing
";

/// What tells what others have done as well: the numbers of `cas` count for all keys.
const ALONE: &str = "
    gets k | gets k k k | gats x k | cas k n x d c | cas k n x d c | cas k n x d c noreply | mg k c v | ms k d Cc c
    md k Cc q | ma k c v N0 | ms k d c | mg k c k f
";

struct Client<'a> {
    dice: &'a mut Rng,
    name: String,
    commands: Vec<&'static str>,
}

impl Client<'_> {
    fn next(&mut self) -> Vec<u8> {
        let line = one(self.dice, &self.commands);
        let mut data = None;
        let command = words(line, |letter| {
            let dice = &mut *self.dice;
            let text = match letter {
                b'k' => format!("{}-{}", self.name, dice.u32(0..6)),
                b'n' => dice.u32(0..30).to_string(),
                b'x' => one(dice, &["0", "0", "0", "0", "-1"]).to_string(),
                b'd' => {
                    let number = dice.u32(0..50).to_string().into_bytes();
                    let drawn = match dice.u32(0..60) {
                        0 => vec![b'x'; 1_200_000],
                        1..20 => number,
                        // Of blanks alone, `incr` makes a number of whatever lies behind them in its memory.
                        _ => [b"x", &bytes(dice)[..]].concat(),
                    };
                    data.insert(drawn).len().to_string()
                }
                b'c' if line.starts_with("cas") => dice.u32(0..60).to_string(),
                b'f' => {
                    let flags = ["v", "k", "s", "f", "t", "q", "O7", "", ""];
                    (0..4).map(|_| one(dice, &flags)).collect::<Vec<_>>().join(" ")
                }
                other => char::from(other).to_string(),
            };
            text.into_bytes()
        });
        let mut all = command.join(&b' ');
        // Not twice the same flag.
        let mut seen = BTreeSet::new();
        let mut kept: Vec<&[u8]> =
            all.split(|byte| *byte == b' ').filter(|word| !word.is_empty()).collect();
        if line.starts_with('m') {
            let mut place = 0;
            kept.retain(|word| {
                place += 1;
                place < 3 || word[0].is_ascii_digit() || seen.insert(word[0])
            });
        }
        let gap: &[u8] = if self.dice.u32(0..20) == 0 { b"  " } else { b" " };
        all = kept.join(gap);
        all.extend_from_slice(b"\r\n");
        if let Some(data) = data {
            all.extend_from_slice(&data);
            all.extend_from_slice(b"\r\n");
        }
        all
    }
}

fn talk(number: usize, dice: &mut Rng, alone: bool) -> Talk {
    let mut commands = lines(COMMANDS);
    if alone {
        commands.extend(lines(ALONE));
    }
    let mut client = Client { dice, name: format!("key{number}"), commands };
    let mut talk: Talk = (0..client.dice.usize(5..20))
        .map(|batch| {
            let count = client.dice.usize(1..12);
            let mut bytes: Vec<u8> = several(count, || client.next());
            let last = format!("nothing-{batch}");
            bytes.extend(format!("md {last} O{batch}end\r\n").bytes());
            Batch { bytes, done: Done::Says(format!("NF O{batch}end\r\n")) }
        })
        .collect();
    talk.push(Batch { bytes: b"quit\r\n".to_vec(), done: Done::Closed });
    talk
}

/// Lines that only some versions would take, or that are not worth a way to the server: what each says, and the proxy.
const REFUSED: &[(&str, &str, &str)] = &[
    ("get", "ERROR", "CLIENT_ERROR bad command line format"),
    // Beyond 2038, for which some versions have no room.
    ("set a 0 4000000000 1\r\nx", "STORED", "CLIENT_ERROR bad command line format"),
    ("get noreply", "END", "CLIENT_ERROR bad command line format"),
    ("shutdown", "ERROR: shutdown not enabled", "SERVER_ERROR trunkline: shutdown is refused"),
];

pub(crate) fn refused(mode: Mode) {
    let server = memcached::server();
    let proxy = Proxy::sharing(mode, "memcached", &server.address());
    for (line, said, told) in REFUSED {
        for (port, answer) in [(server.port, said), (proxy.port, told)] {
            let bytes = format!("{line}\r\nmn\r\n").into_bytes();
            let talk = vec![Batch { bytes, done: Done::Says("MN\r\n".into()) }];
            let heard = String::from_utf8(converse(port, &talk).concat()).expect("it is text");
            assert_eq!(heard, format!("{answer}\r\nMN\r\n"), "the answer to {line:?}");
        }
    }
    proxy.stop().clean();
}

pub(crate) fn replies(mode: Mode) {
    let servers = [memcached::server(), memcached::server()];
    let proxy = Proxy::sharing_with(mode, "memcached", &servers[1].address(), &["--trunks", "3"]);
    let mut dice = Rng::with_seed(7);
    for (at_once, alone) in [(1, true), (8, false)] {
        let talks: Vec<Talk> = (0..64).map(|number| talk(number, &mut dice, alone)).collect();
        same([servers[0].port, proxy.port], &talks, at_once, <[u8]>::to_vec, |_, _, _| false);
    }
    proxy.stop().clean();
}
