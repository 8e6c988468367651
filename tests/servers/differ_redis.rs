//! Random commands for Redis.

use super::differ::{Batch, Done, Talk, bytes, converse, lines, one, same, several, words};
use super::*;
use fastrand::Rng;

/// Keys by their kind: `s`tring, `h`ash, `l`ist, s`e`t, sorted set (`z`), stream (`x`). A `v`alue, a short one (`w`), a
/// fie`m`d or `m`ember, an `i`nteger, a `f`loat, an `n`umber that is never negative, a s`c`ript, a stream's `t`ime.
/// Of sets there are only those of numbers: the order of others is the server's secret.
const COMMANDS: &str = "
    GET s | SET s v | SET s v NX | SET s v XX GET | SETNX s v | GETSET s v | GETDEL s | APPEND s v | STRLEN s
    INCR s | DECRBY s i | INCRBYFLOAT s f | SETRANGE s n w | GETRANGE s i i | MSET s v s v | MSETNX s v s v | MGET s s h
    SETBIT s n 1 | GETBIT s n | BITCOUNT s | BITPOS s 1 | BITOP NOT s s | BITFIELD s SET u8 n n GET u4 0 | LCS s s
    SET s i | SET s i | DEL s | UNLINK l h | EXISTS s s l | TYPE x | COPY s s | RENAME l l | RENAMENX s s | DUMP s
    EXPIREAT s 4000000000 | EXPIRETIME s | PERSIST s | GETEX s PERSIST | OBJECT ENCODING z | TOUCH s h | SET s v EX 0
    HSET h m w m w | HSETNX h m w | HGET h m | HMGET h m m m | HGETALL h | HDEL h m | HLEN h | HKEYS h | HVALS h
    HINCRBY h m i | HINCRBYFLOAT h m f | HSTRLEN h m | HEXISTS h m | HSCAN h 0 | HMSET h m w
    LPUSH l v w | RPUSH l w v | LPOP l | RPOP l n | LRANGE l i i | LINDEX l i | LSET l i w | LLEN l | LREM l i w
    LTRIM l n n | LINSERT l BEFORE w w | LPOS l w | LMOVE l l LEFT RIGHT | RPOPLPUSH l l | LPUSHX l w | LMPOP 2 l l LEFT
    SADD e n n n | SREM e n | SCARD e | SISMEMBER e n | SMISMEMBER e n n | SMEMBERS e | SMOVE e e n | SINTER e e
    SUNION e e | SDIFF e e | SINTERCARD 2 e e | SUNIONSTORE e e e | SSCAN e 0 | SORT e DESC LIMIT 0 3 | SORT l ALPHA
    ZADD z f m f m | ZADD z NX f m | ZADD z XX CH f m | ZINCRBY z f m | ZSCORE z m | ZMSCORE z m m | ZRANK z m
    ZRANGE z i i WITHSCORES | ZRANGE z -inf +inf BYSCORE LIMIT 0 2 | ZREVRANGE z 0 -1 | ZRANGEBYLEX z - +
    ZCOUNT z -inf f | ZCARD z | ZREM z m | ZPOPMIN z | ZPOPMAX z 2 | ZUNIONSTORE z 2 z z | ZINTER 2 z z WITHSCORES
    ZDIFF 2 z z | ZREMRANGEBYRANK z n n | ZSCAN z 0 | ZMPOP 1 z MAX | GEOADD z f f m | GEOPOS z m | GEODIST z m m
    XADD x t m w | XADD x t m v m w | XADD x t m | XLEN x | XRANGE x - + | XREVRANGE x + - COUNT 2 | XDEL x t
    XREAD COUNT 3 STREAMS x t | XREAD STREAMS x x t t | XTRIM x MAXLEN 5 | XSETID x t | XGROUP CREATE x g t MKSTREAM
    XREADGROUP GROUP g one COUNT 2 STREAMS x > | XACK x g t t | XPENDING x g | XGROUP DESTROY x g
    XAUTOCLAIM x g two 0 0 JUSTID | XREAD BLOCK 5 STREAMS x t | XREADGROUP GROUP g one BLOCK 5 STREAMS x >
    EVAL c 1 s v | EVAL c 1 l w | EVAL c 0 | EVAL_RO c 1 s | EVALSHA 00 1 s | SCRIPT EXISTS 00 11
    BLPOP l l 0.01 | BRPOP l 0.01 | BLMOVE l l RIGHT LEFT 0.01 | BLMPOP 0.01 2 l l LEFT COUNT 2 | BZPOPMIN z z 0.01
    BZPOPMAX z 0.01 | BRPOPLPUSH l l 0.01 | WAIT 0 10 | BLPOP l -1 | BLPOP s 0.01
    PING | PING v | ECHO v | PFADD s w w | PFCOUNT s s | PFMERGE s s | OBJECT HELP
    NOTHING | NOTHING v w | SETEX s | SET s v WRONG | CONFIG GET maxmemory-policy | CLUSTER INFO
    DEBUG SLEEP 0 | CLIENT UNBLOCK 123456789 | ACL WHOAMI | SWAPDB 1
";

/// What ties a client to a trunk.
const TIES: &str = "
    SELECT 0 | SELECT 1 | SELECT 2 | SELECT 99 | SELECT w | CLIENT SETNAME m | CLIENT GETNAME | CLIENT SETNAME v
    HELLO | HELLO 3 | HELLO 2 | HELLO 9 | HELLO 3 SETNAME m | AUTH w | AUTH w w | RESET | RESET | RESET m | READONLY
    CLIENT NO-EVICT off | CLIENT TRACKINGINFO | CLIENT NOTHING | ASKING | CLIENT
";

const SCRIPTS: &[&str] = &[
    "return redis.call('INCR', KEYS[1])",
    "return {1, 'two', {3, redis.call('TYPE', KEYS[1])}, false}",
    "return redis.error_reply('MINE own')",
    "return redis.call('LPUSH', KEYS[1], ARGV[1], ARGV[1])",
    "return redis.pcall('GET', KEYS[1])",
    "this is no Lua",
    "return redis.call('BLPOP', 'none', 0)",
    "redis.setresp(3) return {double = 1.5, map = {map = {a = 1}}}",
];

struct Client<'a> {
    dice: &'a mut Rng,
    name: String,
    commands: Vec<&'static str>,
    ties: Vec<&'static str>,
    /// Whether it ever ties itself to a trunk, other than by MULTI and WATCH; and whether it ever subscribes.
    is_tied: bool,
    subscribes: bool,
    multi: bool,
    resp3: bool,
    channels: BTreeSet<u32>,
    pattern: bool,
    values: usize,
}

impl Client<'_> {
    fn key(&mut self, kind: char) -> Vec<u8> {
        // Sometimes one of another kind.
        let kind = if self.dice.u32(0..15) == 0 {
            one(self.dice, &['s', 'h', 'l', 'z', 'x'])
        } else {
            kind
        };
        format!("{}:{kind}{}", self.name, self.dice.u32(0..3)).into_bytes()
    }

    fn word(&mut self, letter: u8) -> Vec<u8> {
        let dice = &mut *self.dice;
        match letter {
            b's' | b'h' | b'l' | b'e' | b'z' | b'x' => self.key(char::from(letter)),
            b'v' => bytes(dice),
            b'w' => vec![dice.u8(b'a'..=b'd'); dice.usize(0..4)],
            b'm' => vec![dice.u8(b'a'..=b'f')],
            b'i' => dice.i32(-5..20).to_string().into_bytes(),
            b'n' => dice.i32(0..12).to_string().into_bytes(),
            b'f' => format!("{}.{}", dice.i32(-9..50), one(dice, &[0, 25, 5])).into_bytes(),
            b'c' => one(dice, SCRIPTS).as_bytes().to_vec(),
            b't' => format!("{}-{}", dice.u32(0..9), dice.u32(0..9)).into_bytes(),
            other => vec![other],
        }
    }

    fn next(&mut self) -> Vec<u8> {
        let pool = match self.dice.u32(0..10) {
            0 if self.is_tied => &self.ties,
            1 if self.subscribes => return self.subscription(),
            2 => return self.transaction(),
            _ => &self.commands,
        };
        let line = one(self.dice, pool);
        if line.starts_with("HELLO") && self.multi {
            // From EXEC on, if it comes to that.
            return self.transaction();
        }
        let mut command = words(line, |letter| self.word(letter));
        if self.dice.u32(0..20) == 0 {
            // Too few, or too many.
            match self.dice.bool() {
                true if command.len() > 1 => drop(command.pop()),
                // No set of anything but numbers.
                _ if line.starts_with("SADD") => {}
                _ => command.push(self.key('s')),
            }
        } else if line == "RESET" {
            (self.multi, self.resp3, self.pattern) = (false, false, false);
            self.channels.clear();
        } else if line.starts_with("HELLO 3") && !self.is_held() {
            self.resp3 = true;
        } else if line == "HELLO 2" {
            self.resp3 = false;
        }
        self.encode(&command, 1)
    }

    /// Whether it is a subscriber of RESP2, which may do nothing else.
    fn is_held(&self) -> bool {
        !self.resp3 && (self.pattern || !self.channels.is_empty())
    }

    fn transaction(&mut self) -> Vec<u8> {
        let line =
            one(self.dice, &["MULTI", "MULTI", "EXEC", "EXEC", "DISCARD", "WATCH", "UNWATCH"]);
        match line {
            "MULTI" => self.multi = true,
            "EXEC" | "DISCARD" => self.multi = false,
            _ => {}
        }
        let mut command = vec![line.as_bytes().to_vec()];
        if line == "WATCH" {
            command.push(self.key('s'));
        }
        self.encode(&command, 1)
    }

    /// Channels of its own, so that it knows who hears what. The order of several that are left at once is the server's
    /// secret.
    fn subscription(&mut self) -> Vec<u8> {
        if self.multi {
            return self.transaction();
        }
        let (is_held, number) = (self.is_held(), self.dice.u32(0..4));
        let dice = &mut *self.dice;
        let channel = format!("{}:c{number}", self.name).into_bytes();
        let pattern = format!("{}:c*", self.name).into_bytes();
        let (command, values) = match dice.u32(0..7) {
            0 | 1 => {
                self.channels.insert(number);
                (vec![b"SUBSCRIBE".to_vec(), channel], 1)
            }
            2 => {
                let other = (number + 1) % 4;
                self.channels.extend([number, other]);
                let other = format!("{}:c{other}", self.name).into_bytes();
                (vec![b"SUBSCRIBE".to_vec(), channel, other], 2)
            }
            3 => {
                self.channels.remove(&number);
                (vec![b"UNSUBSCRIBE".to_vec(), channel], 1)
            }
            4 if self.channels.len() < 2 => {
                self.channels.clear();
                (vec![b"UNSUBSCRIBE".to_vec()], 1)
            }
            5 => {
                self.pattern = !self.pattern;
                let name = if self.pattern { "PSUBSCRIBE" } else { "PUNSUBSCRIBE" };
                (vec![name.into(), pattern], 1)
            }
            _ => {
                let heard =
                    usize::from(self.channels.contains(&number)) + usize::from(self.pattern);
                let heard = if is_held { 0 } else { heard };
                (vec![b"PUBLISH".to_vec(), channel, bytes(dice)], 1 + heard)
            }
        };
        self.encode(&command, values)
    }

    /// As an array or inline, with what else may be before it.
    fn encode(&mut self, command: &[Vec<u8>], values: usize) -> Vec<u8> {
        self.values += values;
        let mut all = match self.dice.u32(0..40) {
            0 => b"\r\n".to_vec(),
            1 => b"*0\r\n".to_vec(),
            2 => b"*-1\r\n".to_vec(),
            _ => Vec::new(),
        };
        let mut command = command.to_vec();
        if self.dice.bool() {
            command[0].make_ascii_lowercase();
        }
        let length: usize = command.iter().map(Vec::len).sum();
        if length < 1000 && self.dice.u32(0..6) == 0 {
            for word in &command {
                let plain = !word.is_empty()
                    && word
                        .iter()
                        .all(|byte| byte.is_ascii_alphanumeric() || b":.-".contains(byte));
                match self.dice.u32(0..4) {
                    0 if !word.contains(&b'\\') => {
                        let text: Vec<u8> = word
                            .iter()
                            .flat_map(|byte| match byte {
                                b'\'' => b"\\'".to_vec(),
                                b'\n' | 0 => b"?".to_vec(),
                                other => vec![*other],
                            })
                            .collect();
                        all.extend([b"'", &text[..], b"'"].concat());
                    }
                    1.. if plain => all.extend_from_slice(word),
                    _ => {
                        all.push(b'"');
                        for byte in word {
                            match byte {
                                b'a'..=b'z' | b'A'..=b'Z' => all.push(*byte),
                                other => all.extend(format!("\\x{other:02x}").bytes()),
                            }
                        }
                        all.push(b'"');
                    }
                }
                all.push(b' ');
            }
            all.extend_from_slice(if self.dice.bool() { b"\r\n" } else { b"\n" });
            return all;
        }
        all.extend(format!("*{}\r\n", command.len()).bytes());
        for word in command {
            all.extend(format!("${}\r\n", word.len()).bytes());
            all.extend_from_slice(&word);
            all.extend(b"\r\n");
        }
        all
    }
}

fn talk(number: usize, dice: &mut Rng) -> Talk {
    let mut client = Client {
        name: format!("client{number}"),
        commands: lines(COMMANDS),
        ties: lines(TIES),
        is_tied: number.is_multiple_of(3),
        subscribes: number.is_multiple_of(4),
        multi: false,
        resp3: false,
        channels: BTreeSet::new(),
        pattern: false,
        values: 0,
        dice,
    };
    let mut talk: Talk = (0..client.dice.usize(5..25))
        .map(|_| {
            let count = client.dice.usize(1..12);
            let bytes = several(count, || client.next());
            Batch { bytes, done: Done::Values(client.values) }
        })
        .collect();
    const ENDS: &[&str] = &[
        "QUIT\r\n",
        "QUIT\r\n",
        "*1\r\n$4\r\nquit\r\n",
        "*1\r\n$4\r\nquit\r\n",
        "*2\r\n$4\r\nQUIT\r\n$1\r\nx\r\n",
        "*1\r\n$x\r\n",
        "*1\r\n$-1\r\n",
        "*1\r\n!4\r\n",
        "*99999999999\r\n",
        "*x\r\n",
        "GET \"x\r\n",
        "GET 'x'y\r\n",
        "*1\r\n$99999999999\r\n",
        "POST / HTTP/1.1\r\n",
        "*01\r\n",
    ];
    let end = one(client.dice, ENDS);
    talk.push(Batch { bytes: end.into(), done: Done::Closed });
    talk
}

/// Without the number that the server gives to a connection, which HELLO tells.
fn plain(heard: &[u8]) -> Vec<u8> {
    const ID: &[u8] = b"$2\r\nid\r\n:";
    let mut left = heard;
    let mut plain = Vec::new();
    while let Some(at) = left.windows(ID.len()).position(|part| part == ID) {
        plain.extend_from_slice(&left[..at + ID.len()]);
        left = left[at + ID.len()..].trim_ascii_start();
        left = &left[left.iter().take_while(|byte| byte.is_ascii_digit()).count()..];
    }
    plain.extend_from_slice(left);
    plain
}

/// What the proxy answers by itself, otherwise than a server would.
const REFUSED: &[(&str, &str)] = &[
    ("SHUTDOWN NOSAVE", "-ERR trunkline: SHUTDOWN is refused on a shared connection\r\n"),
    ("CLIENT REPLY OFF", "-ERR trunkline: CLIENT REPLY is refused: every reply is counted\r\n"),
    // Redis 7.0 does not know it yet.
    ("CLIENT SETINFO LIB-NAME me", "+OK\r\n"),
];

pub(crate) fn refused(mode: Mode) {
    let server = redis::server();
    let proxy = Proxy::sharing(mode, "resp", &server.address());
    let hear = |requests: &str, values| {
        let batch = Batch { bytes: requests.into(), done: Done::Values(values) };
        String::from_utf8(converse(proxy.port, &[batch]).concat()).expect("it is text")
    };
    for (line, answer) in REFUSED {
        assert_eq!(hear(&format!("{line}\r\nPING\r\n"), 2), format!("{answer}+PONG\r\n"), "{line}");
    }
    // Nothing of a transaction is carried out if a part of it is refused.
    let said = hear("MULTI\r\nSET a 1\r\nSHUTDOWN\r\nEXEC\r\nGET a\r\n", 5);
    assert!(
        said.ends_with("-EXECABORT Transaction discarded because of previous errors.\r\n$-1\r\n"),
        "{said}"
    );
    proxy.stop().clean();
}

pub(crate) fn replies(mode: Mode) {
    let servers = [redis::server(), redis::server()];
    let proxy = Proxy::sharing_with(mode, "resp", &servers[1].address(), &["--trunks", "3"]);
    let mut dice = Rng::with_seed(7);
    let talks: Vec<Talk> = (0..64).map(|number| talk(number, &mut dice)).collect();
    // It closes by itself whoever speaks HTTP, and says nothing.
    let excuse = |asked: &[u8], _: &[u8], told: &[u8]| {
        asked.starts_with(b"POST") && told == b"-ERR trunkline: this is no HTTP server\r\n"
    };
    same([servers[0].port, proxy.port], &talks, 8, plain, excuse);
    proxy.stop().clean();
}
