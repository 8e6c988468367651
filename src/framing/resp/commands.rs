//! What a command means for the trunk: tables, and the state of one client.
//!
//! Names and options are compared as some servers compare them, which is not to be expected: without regard to case, and
//! up to a NUL. Redis finds some `PING\0x` to be `PING`: whoever took that for an unknown command would let a client do
//! unseen whatever it likes to a trunk that it shares.

use super::super::{Action, Binding, Count, Request, Shape};
use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::LazyLock;

/// The longest word that is compared with another; a longer one is nothing that is known here.
const LONGEST: usize = 24;

/// The first words of a request, and how many there are.
#[derive(Debug, Default)]
pub(super) struct Words {
    /// More than any request needs that has no option twice.
    first: [Word; 12],
    /// Words that have ended.
    ended: usize,
    /// How many there are; `None` is not known yet.
    count: Option<u32>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Word {
    text: [u8; LONGEST],
    length: usize,
    /// Nothing that follows changes it: it has ended, or a NUL has come.
    known: bool,
    too_long: bool,
}

impl Words {
    /// For the next request. Most have a few words, and clearing all the others takes as long as reading those.
    pub(super) fn clear(&mut self) {
        let used = self.first.len().min(self.ended.saturating_add(1));
        self.first[..used].fill(Word::default());
        (self.ended, self.count) = (0, None);
    }

    /// There will be so many.
    pub(super) fn expect(&mut self, count: u32) {
        self.count = Some(count);
    }

    /// More of the word that has not ended.
    pub(super) fn extend(&mut self, bytes: &[u8]) {
        let Some(word) = self.first.get_mut(self.ended) else { return };
        if word.known || word.too_long {
            return;
        }
        let room = &mut word.text[word.length..];
        // One more than there is room for tells whether it is too long.
        let seen = &bytes[..bytes.len().min(room.len() + 1)];
        let nul = seen.iter().position(|byte| *byte == 0);
        let length = nul.unwrap_or(seen.len());
        word.known = nul.is_some();
        word.too_long = length > room.len();
        let length = length.min(room.len());
        room[..length].copy_from_slice(&seen[..length]);
        room[..length].make_ascii_uppercase();
        word.length += length;
    }

    pub(super) fn end_word(&mut self) {
        if let Some(word) = self.first.get_mut(self.ended) {
            word.known = true;
        }
        self.ended = self.ended.saturating_add(1);
    }

    /// There are no more.
    pub(super) fn end_line(&mut self) {
        self.count = Some(u32::try_from(self.ended).unwrap_or(u32::MAX));
    }

    /// Whether the command is known, whatever follows: its name, and the word behind it, or that there is none. A word that
    /// is too long is known to be none of those that are looked for.
    pub(super) fn name_a_command(&self) -> bool {
        let [name, subcommand, ..] = &self.first;
        let alone = self.count.is_some_and(|count| count < 2);
        name.too_long || (name.known && (alone || subcommand.known || subcommand.too_long))
    }

    /// A word in upper case; `None` if it is too long, not complete or not there.
    fn get(&self, place: usize) -> Option<&[u8]> {
        let word = self.first.get(place).filter(|word| word.known && !word.too_long)?;
        word.text.get(..word.length)
    }
}

/// What is to be known of a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// One reply, and nothing else to say.
    Plain,
    /// The same, and it changes nothing.
    Read,
    /// It makes the trunk wait, or may end it.
    Blocking(&'static str),
    /// So does this, if it has the option BLOCK.
    Stream(&'static str),
    /// It changes the connection, until RESET.
    Bound(&'static str),
    /// What follows cannot be counted.
    Tunnel(&'static str),
    /// It is answered by this error.
    Refused(&'static str),
    /// CLIENT REPLY.
    ReplyMode,
    /// EXEC and DISCARD.
    Ends,
    Multi,
    Watch,
    Unwatch,
    Select,
    Asking,
    Hello,
    /// CLIENT SETINFO.
    SetInfo,
    Reset,
    Quit,
    Http,
}

/// Commands that are more than plain, by name or by name and subcommand; sorted.
pub(super) const COMMANDS: &[(&str, Kind)] = &[
    ("ASKING", Kind::Asking),
    ("AUTH", Kind::Bound("AUTH")),
    ("BLMOVE", Kind::Blocking("blocking: BLMOVE")),
    ("BLMPOP", Kind::Blocking("blocking: BLMPOP")),
    ("BLPOP", Kind::Blocking("blocking: BLPOP")),
    ("BRPOP", Kind::Blocking("blocking: BRPOP")),
    ("BRPOPLPUSH", Kind::Blocking("blocking: BRPOPLPUSH")),
    ("BZMPOP", Kind::Blocking("blocking: BZMPOP")),
    ("BZPOPMAX", Kind::Blocking("blocking: BZPOPMAX")),
    ("BZPOPMIN", Kind::Blocking("blocking: BZPOPMIN")),
    ("CLIENT", Kind::Bound("CLIENT")),
    ("CLIENT CACHING", Kind::Bound("CLIENT CACHING")),
    ("CLIENT GETNAME", Kind::Bound("CLIENT GETNAME")),
    ("CLIENT GETREDIR", Kind::Bound("CLIENT GETREDIR")),
    ("CLIENT HELP", Kind::Plain),
    ("CLIENT ID", Kind::Bound("CLIENT ID")),
    ("CLIENT INFO", Kind::Bound("CLIENT INFO")),
    ("CLIENT KILL", Kind::Blocking("CLIENT KILL")),
    ("CLIENT LIST", Kind::Plain),
    ("CLIENT NO-EVICT", Kind::Bound("CLIENT NO-EVICT")),
    ("CLIENT NO-TOUCH", Kind::Bound("CLIENT NO-TOUCH")),
    ("CLIENT PAUSE", Kind::Plain),
    ("CLIENT REPLY", Kind::ReplyMode),
    ("CLIENT SETINFO", Kind::SetInfo),
    ("CLIENT SETNAME", Kind::Bound("CLIENT SETNAME")),
    ("CLIENT TRACKING", Kind::Bound("CLIENT TRACKING")),
    ("CLIENT TRACKINGINFO", Kind::Bound("CLIENT TRACKINGINFO")),
    ("CLIENT UNBLOCK", Kind::Plain),
    ("CLIENT UNPAUSE", Kind::Plain),
    ("CLUSTER SYNCSLOTS", Kind::Tunnel("CLUSTER SYNCSLOTS")),
    ("DEBUG", Kind::Blocking("DEBUG")),
    ("DISCARD", Kind::Ends),
    ("EXEC", Kind::Ends),
    ("HELLO", Kind::Hello),
    ("HOST:", Kind::Http),
    ("MONITOR", Kind::Tunnel("MONITOR")),
    ("MULTI", Kind::Multi),
    ("POST", Kind::Http),
    ("PSUBSCRIBE", Kind::Tunnel("PSUBSCRIBE")),
    ("PSYNC", Kind::Tunnel("PSYNC")),
    ("PUNSUBSCRIBE", Kind::Tunnel("PUNSUBSCRIBE")),
    ("QUIT", Kind::Quit),
    ("READONLY", Kind::Bound("READONLY")),
    ("READWRITE", Kind::Bound("READWRITE")),
    ("REPLCONF", Kind::Tunnel("REPLCONF")),
    ("RESET", Kind::Reset),
    ("SCRIPT DEBUG", Kind::Tunnel("SCRIPT DEBUG")),
    ("SELECT", Kind::Select),
    ("SHUTDOWN", Kind::Refused("SHUTDOWN is refused on a shared connection")),
    ("SSUBSCRIBE", Kind::Tunnel("SSUBSCRIBE")),
    ("SUBSCRIBE", Kind::Tunnel("SUBSCRIBE")),
    ("SUNSUBSCRIBE", Kind::Tunnel("SUNSUBSCRIBE")),
    ("SYNC", Kind::Tunnel("SYNC")),
    ("UNSUBSCRIBE", Kind::Tunnel("UNSUBSCRIBE")),
    ("UNWATCH", Kind::Unwatch),
    ("WAIT", Kind::Blocking("blocking: WAIT")),
    ("WAITAOF", Kind::Blocking("blocking: WAITAOF")),
    ("WATCH", Kind::Watch),
    ("XREAD", Kind::Stream("blocking: XREAD")),
    ("XREADGROUP", Kind::Stream("blocking: XREADGROUP")),
];

/// Commands that change nothing, by name or by name and subcommand; sorted. TOUCH, LOLWUT, PFCOUNT and their like are among
/// them: what they change is no data.
#[rustfmt::skip]
pub(super) const READS: &[&str] = &[
    "ACL CAT", "ACL GETUSER", "ACL LIST", "ACL USERS", "ACL WHOAMI", "BITCOUNT", "BITFIELD_RO",
    "BITPOS", "CLUSTER COUNTKEYSINSLOT", "CLUSTER GETKEYSINSLOT", "CLUSTER INFO",
    "CLUSTER KEYSLOT", "CLUSTER LINKS", "CLUSTER MYID", "CLUSTER MYSHARDID", "CLUSTER NODES",
    "CLUSTER REPLICAS", "CLUSTER SHARDS", "CLUSTER SLAVES", "CLUSTER SLOTS", "COMMAND",
    "CONFIG GET", "DBSIZE", "DUMP", "ECHO", "EVALSHA_RO", "EVAL_RO", "EXISTS", "EXPIRETIME",
    "FCALL_RO", "FUNCTION DUMP", "FUNCTION LIST", "FUNCTION STATS", "GEODIST", "GEOHASH",
    "GEOPOS", "GEORADIUSBYMEMBER_RO", "GEORADIUS_RO", "GEOSEARCH", "GET", "GETBIT", "GETRANGE",
    "HEXISTS", "HEXPIRETIME", "HGET", "HGETALL", "HKEYS", "HLEN", "HMGET", "HPEXPIRETIME",
    "HPTTL", "HRANDFIELD", "HSCAN", "HSTRLEN", "HTTL", "HVALS", "INFO", "KEYS", "LASTSAVE",
    "LATENCY HISTOGRAM", "LATENCY HISTORY", "LATENCY LATEST", "LCS", "LINDEX", "LLEN", "LOLWUT",
    "LPOS", "LRANGE", "MEMORY DOCTOR", "MEMORY MALLOC-STATS", "MEMORY STATS", "MEMORY USAGE",
    "MGET", "MODULE LIST", "OBJECT", "PEXPIRETIME", "PFCOUNT", "PING", "PTTL", "PUBSUB",
    "RANDOMKEY", "ROLE", "SCAN", "SCARD", "SCRIPT EXISTS", "SDIFF", "SINTER", "SINTERCARD",
    "SISMEMBER", "SLOWLOG GET", "SLOWLOG LEN", "SMEMBERS", "SMISMEMBER", "SORT_RO", "SRANDMEMBER",
    "SSCAN", "STRLEN", "SUBSTR", "SUNION", "TIME", "TOUCH", "TTL", "TYPE", "XINFO", "XLEN",
    "XPENDING", "XRANGE", "XREVRANGE", "ZCARD", "ZCOUNT", "ZDIFF", "ZINTER", "ZINTERCARD",
    "ZLEXCOUNT", "ZMSCORE", "ZRANDMEMBER", "ZRANGE", "ZRANGEBYLEX", "ZRANGEBYSCORE", "ZRANK",
    "ZREVRANGE", "ZREVRANGEBYLEX", "ZREVRANGEBYSCORE", "ZREVRANK", "ZSCAN", "ZSCORE", "ZUNION",
];

/// The kind of a command, by the longest name in the tables.
pub(super) fn kind(name: &[u8], subcommand: Option<&[u8]>) -> Kind {
    let Some(named) = find(name) else { return Kind::Plain };
    if let Some(subcommand) = subcommand.filter(|_| named.has_subcommands) {
        let mut both = [0; 2 * LONGEST + 1];
        let length = name.len() + 1 + subcommand.len();
        if let Some(both) = both.get_mut(..length) {
            both[..name.len()].copy_from_slice(name);
            both[name.len()] = b' ';
            both[name.len() + 1..].copy_from_slice(subcommand);
            if let Some(both) = find(both) {
                return both.kind;
            }
        }
    }
    named.kind
}

/// What the tables say of a name.
#[derive(Clone, Copy)]
struct Named {
    kind: Kind,
    /// Some names in the tables are this one and another word.
    has_subcommands: bool,
}

fn find(name: &[u8]) -> Option<Named> {
    /// One look for each request, not one for each half of the tables.
    static NAMES: LazyLock<HashMap<&[u8], Named, BuildHasherDefault<Fnv>>> = LazyLock::new(|| {
        let reads = READS.iter().map(|name| (*name, Kind::Read));
        let mut names = HashMap::<_, _, BuildHasherDefault<Fnv>>::default();
        for (name, kind) in reads.chain(COMMANDS.iter().copied()) {
            let plain = Named { kind: Kind::Plain, has_subcommands: false };
            if let Some((first, _)) = name.split_once(' ') {
                names.entry(first.as_bytes()).or_insert(plain).has_subcommands = true;
            }
            names.entry(name.as_bytes()).or_insert(plain).kind = kind;
        }
        names
    });
    NAMES.get(name).copied()
}

/// FNV-1a: for short names nothing is faster, and nobody but us puts any into the table.
struct Fnv(u64);

impl Default for Fnv {
    fn default() -> Self {
        Fnv(0xcbf2_9ce4_8422_2325)
    }
}

impl Hasher for Fnv {
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }

    /// How long a name is makes no difference.
    fn write_usize(&mut self, _: usize) {}

    fn finish(&self) -> u64 {
        self.0
    }
}

/// Whether XREAD or XREADGROUP has the option BLOCK, as far as can be seen: if not all can be, it has.
fn blocks(words: &Words) -> bool {
    let mut place = 1;
    loop {
        place += match words.get(place) {
            Some(b"STREAMS") => return false,
            Some(b"COUNT") => 2,
            Some(b"GROUP") => 3,
            Some(b"NOACK") => 1,
            _ => return true,
        };
    }
}

/// What one client has made of its connection.
#[derive(Debug, Default)]
pub(super) struct Client {
    multi: bool,
    watching: bool,
    /// It is not in database 0.
    database: bool,
    /// Its last request was ASKING.
    asking: bool,
    /// What changed its connection until RESET.
    bound: Option<&'static str>,
    tunnel: Option<&'static str>,
}

impl Client {
    /// Why it is pinned: the reason that lasts longest.
    fn why(&self) -> Option<&'static str> {
        let or = |is: bool, why| is.then_some(why);
        self.bound
            .or(or(self.database, "SELECT"))
            .or(or(self.multi, "MULTI"))
            .or(or(self.watching, "WATCH"))
            .or(or(self.asking, "ASKING"))
    }

    /// What a request means that begins with these words, and what is sent in its place. This is asked once for each
    /// request, in their order.
    pub(super) fn request(&mut self, words: &Words) -> (Request, Option<Vec<u8>>) {
        if let Some(why) = self.tunnel {
            return (tunnel(why), None);
        }
        let was = self.why();
        if words.count == Some(0) {
            return (self.here(Action::Skip), None);
        }
        let name = words.get(0).unwrap_or_default();
        // The whole name, but only a word without a space is one: `CLIENT ID` in one word is no command.
        let kind = if name.contains(&b' ') { Kind::Plain } else { kind(name, words.get(1)) };
        let kind = match kind {
            Kind::Stream(why) if blocks(words) => Kind::Blocking(why),
            // XREADGROUP moves the place of its group.
            Kind::Stream(_) if name == b"XREAD" => Kind::Read,
            // What it says is so already.
            Kind::ReplyMode if words.count == Some(3) && words.get(2) == Some(b"ON") => Kind::Plain,
            Kind::ReplyMode => Kind::Refused("CLIENT REPLY is refused: every reply is counted"),
            // That is how it is already, or else the client is pinned.
            Kind::Hello if words.count == Some(1) => Kind::Plain,
            Kind::Hello if words.count == Some(2) && words.get(1) == Some(b"2") => Kind::Plain,
            Kind::Hello => Kind::Bound("HELLO"),
            other => other,
        };
        // With arguments, Redis refuses these, and they do nothing.
        let alone = words.count == Some(1);
        match kind {
            Kind::Quit => return (self.last(b"+OK\r\n"), None),
            Kind::Http => return (self.last(b"-ERR trunkline: this is no HTTP server\r\n"), None),
            Kind::Refused(why) if self.multi => {
                // Without a part of it, the transaction must not be carried out.
                let name = format!("trunkline: {why}");
                let unknown = format!("*1\r\n${}\r\n{name}\r\n", name.len()).into_bytes();
                return (forwarded(Binding::Pinned(was.unwrap_or("MULTI")), false), Some(unknown));
            }
            Kind::Refused(why) => {
                let answer = format!("-ERR trunkline: {why}\r\n").into_bytes();
                return (self.here(Action::Answer(answer)), None);
            }
            // Every client says it, for the eyes of CLIENT LIST alone. It must not cost a trunk of its own.
            Kind::SetInfo if was.is_none() && words.count == Some(4) => {
                return (self.here(Action::Answer(b"+OK\r\n".to_vec())), None);
            }
            Kind::Reset if was.is_none() && alone => {
                return (self.here(Action::Answer(b"+RESET\r\n".to_vec())), None);
            }
            Kind::Tunnel(why) => {
                self.tunnel = Some(why);
                return (tunnel(why), None);
            }
            _ => {}
        }
        // Within MULTI, only EXEC, DISCARD and RESET are carried out at once. What binds does so already here; what would
        // free does not.
        self.asking = false;
        match kind {
            Kind::Multi if alone => self.multi = true,
            Kind::Ends if self.multi && alone => (self.multi, self.watching) = (false, false),
            Kind::Watch if !self.multi => self.watching = true,
            Kind::Unwatch if !self.multi && alone => self.watching = false,
            Kind::Select => {
                let zero = words.count == Some(2) && words.get(1) == Some(b"0");
                self.database = !zero || (self.database && self.multi);
            }
            Kind::Asking if !self.multi => self.asking = true,
            Kind::Bound(why) => self.bound = self.bound.or(Some(why)),
            Kind::SetInfo => self.bound = self.bound.or(Some("CLIENT SETINFO")),
            Kind::Reset if alone => *self = Client::default(),
            _ => {}
        }
        let binding = match (self.why(), kind) {
            (Some(why), _) => Binding::Pinned(why),
            (None, _) if was.is_some() => Binding::Release,
            (None, Kind::Blocking(why)) => Binding::Exclusive(why),
            (None, _) => Binding::Shared,
        };
        let idempotent = kind == Kind::Read && binding == Binding::Shared;
        let waits = matches!(kind, Kind::Blocking(_));
        (Request { waits, ..forwarded(binding, idempotent) }, None)
    }

    /// A request that goes nowhere; it leaves everything as it is.
    fn here(&self, action: Action) -> Request {
        let binding = self.why().map_or(Binding::Shared, Binding::Pinned);
        Request { action, replies: Count::Exactly(0), ..forwarded(binding, false) }
    }

    fn last(&self, answer: &[u8]) -> Request {
        Request { last: true, ..self.here(Action::AnswerAndClose(answer.to_vec())) }
    }
}

fn forwarded(binding: Binding, idempotent: bool) -> Request {
    Request {
        action: Action::Forward,
        replies: Count::Exactly(1),
        shape: Shape::default(),
        binding,
        idempotent,
        last: false,
        waits: false,
    }
}

fn tunnel(why: &'static str) -> Request {
    Request { replies: Count::Unknown, ..forwarded(Binding::Tunnel(why), false) }
}
