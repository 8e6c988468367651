//! A small Redis.

use super::Server;
use crate::framing::{Framing, Resp, Shape};
use std::collections::{HashMap, VecDeque};

/// What a key holds.
enum Value {
    Text(Vec<u8>),
    List(VecDeque<Vec<u8>>),
}

/// What a client has made of its connection.
#[derive(Default)]
struct Client {
    database: u32,
    /// What EXEC will carry out, between MULTI and EXEC.
    queued: Option<Vec<Vec<Vec<u8>>>>,
    /// A command could not be queued: EXEC will fail.
    spoilt: bool,
}

/// Keys and values of all databases.
#[derive(Default)]
pub(super) struct Store {
    values: HashMap<(u32, Vec<u8>), Value>,
    clients: HashMap<u64, Client>,
}

/// As many as Redis has by default.
const DATABASES: u32 = 16;

#[rustfmt::skip]
const KNOWN: &[&str] = &[
    "APPEND", "CLIENT", "COMMAND", "CONFIG", "DEL", "DISCARD", "ECHO", "EXEC", "EXISTS", "FLUSHALL", "GET", "HELLO", "INCR",
    "LPOP", "LPUSH", "MGET", "MSET", "MULTI", "PING", "RESET", "RPUSH", "SELECT", "SET",
];

const OK: &[u8] = b"+OK\r\n";
const NONE: &[u8] = b"$-1\r\n";
const NO_NUMBER: &str = "ERR value is not an integer or out of range";
const WRONG_TYPE: &str = "WRONGTYPE Operation against a key holding the wrong kind of value";

impl Server for Store {
    fn answer(&mut self, number: u64, request: &[u8]) -> Vec<u8> {
        let words = words(request);
        let mut client = self.clients.remove(&number).unwrap_or_default();
        let reply = self.command(&mut client, words);
        self.clients.insert(number, client);
        reply
    }

    /// What Redis says where it reads on.
    fn refusal(&self) -> Vec<u8> {
        error("OOM command not allowed when used memory > 'maxmemory'.")
    }

    fn left(&mut self, client: u64) {
        self.clients.remove(&client);
    }
}

/// The words of a request that the framing has cut.
fn words(request: &[u8]) -> Vec<Vec<u8>> {
    if !request.starts_with(b"*") {
        let words = request.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty());
        return words.map(<[u8]>::to_vec).collect();
    }
    // Behind its first line there is nothing but bulk strings, and each is what a reply could be.
    let mut rest = behind_the_line(request);
    let mut strings = Resp::default().replies();
    let (mut words, mut string) = (Vec::new(), Vec::new());
    while let Ok(Some(piece)) = strings.next(rest, Some(Shape::default())) {
        let (bytes, behind) = rest.split_at(piece.bytes);
        string.extend_from_slice(bytes);
        rest = behind;
        if piece.ends {
            let text = behind_the_line(&string);
            words.push(text.strip_suffix(b"\r\n").unwrap_or(text).to_vec());
            string.clear();
        }
    }
    words
}

fn behind_the_line(bytes: &[u8]) -> &[u8] {
    bytes.iter().position(|byte| *byte == b'\n').map_or(&[], |end| &bytes[end + 1..])
}

impl Store {
    fn command(&mut self, client: &mut Client, words: Vec<Vec<u8>>) -> Vec<u8> {
        let Some(name) = words.first().map(|name| name.to_ascii_uppercase()) else {
            return error("ERR there is no command");
        };
        match (&name[..], words.len()) {
            (b"MULTI", 1) if client.queued.is_some() => error("ERR MULTI calls can not be nested"),
            (b"MULTI", 1) => {
                (client.queued, client.spoilt) = (Some(Vec::new()), false);
                OK.to_vec()
            }
            (b"EXEC", 1) => match client.queued.take() {
                None => error("ERR EXEC without MULTI"),
                Some(_) if client.spoilt => {
                    error("EXECABORT Transaction discarded because of previous errors.")
                }
                Some(commands) => {
                    let replies = commands.iter().map(|words| self.carry_out(client, words));
                    array(replies.collect())
                }
            },
            (b"DISCARD", 1) => match client.queued.take() {
                None => error("ERR DISCARD without MULTI"),
                Some(_) => OK.to_vec(),
            },
            (b"RESET", 1) => {
                *client = Client::default();
                b"+RESET\r\n".to_vec()
            }
            _ => match &mut client.queued {
                None => self.carry_out(client, &words),
                Some(_) if !is_known(&name) => {
                    client.spoilt = true;
                    unknown(&name)
                }
                Some(queued) => {
                    queued.push(words);
                    b"+QUEUED\r\n".to_vec()
                }
            },
        }
    }

    fn carry_out(&mut self, client: &mut Client, words: &[Vec<u8>]) -> Vec<u8> {
        let done = self.try_to(client, words);
        done.unwrap_or_else(|why| error(&why))
    }

    fn try_to(&mut self, client: &mut Client, words: &[Vec<u8>]) -> Result<Vec<u8>, String> {
        let Some((name, arguments)) = words.split_first() else { return Ok(Vec::new()) };
        let name = name.to_ascii_uppercase();
        let arguments: Vec<&[u8]> = arguments.iter().map(Vec::as_slice).collect();
        let place = |key: &[u8]| (client.database, key.to_vec());
        Ok(match (&name[..], &arguments[..]) {
            (b"PING", []) => b"+PONG\r\n".to_vec(),
            (b"PING" | b"ECHO", [text]) => bulk(text),
            (b"SET", [key, value, how @ ..]) => {
                let there = self.values.contains_key(&place(key));
                let may = match how {
                    [] => true,
                    [how] if how.eq_ignore_ascii_case(b"NX") => !there,
                    [how] if how.eq_ignore_ascii_case(b"XX") => there,
                    _ => return Err("ERR syntax error; this fake knows NX and XX alone".into()),
                };
                if !may {
                    return Ok(NONE.to_vec());
                }
                self.values.insert(place(key), Value::Text(value.to_vec()));
                OK.to_vec()
            }
            (b"GET", [key]) => match self.values.get(&place(key)) {
                None => NONE.to_vec(),
                Some(Value::Text(text)) => bulk(text),
                Some(Value::List(_)) => return Err(WRONG_TYPE.into()),
            },
            (b"MGET", [_, ..]) => {
                let text = |key: &&[u8]| match self.values.get(&place(key)) {
                    Some(Value::Text(text)) => bulk(text),
                    _ => NONE.to_vec(),
                };
                array(arguments.iter().map(text).collect())
            }
            (b"MSET", [_, _, ..]) if arguments.len().is_multiple_of(2) => {
                for pair in arguments.chunks(2) {
                    self.values.insert(place(pair[0]), Value::Text(pair[1].to_vec()));
                }
                OK.to_vec()
            }
            (b"DEL", [_, ..]) => {
                let gone = |key: &&&[u8]| self.values.remove(&place(key)).is_some();
                number(arguments.iter().filter(gone).count())
            }
            (b"EXISTS", [_, ..]) => {
                let there = |key: &&&[u8]| self.values.contains_key(&place(key));
                number(arguments.iter().filter(there).count())
            }
            (b"INCR", [key]) => {
                let text = self.text(place(key))?;
                let before = match &text[..] {
                    [] => Some(0),
                    _ => str::from_utf8(text).ok().and_then(|text| text.parse::<i64>().ok()),
                };
                let after = before.and_then(|before| before.checked_add(1)).ok_or(NO_NUMBER)?;
                *text = after.to_string().into_bytes();
                format!(":{after}\r\n").into_bytes()
            }
            (b"APPEND", [key, more]) => {
                let text = self.text(place(key))?;
                text.extend_from_slice(more);
                number(text.len())
            }
            (b"LPUSH" | b"RPUSH", [key, _, ..]) => {
                let list = Value::List(VecDeque::new());
                let Value::List(list) = self.values.entry(place(key)).or_insert(list) else {
                    return Err(WRONG_TYPE.into());
                };
                for value in &arguments[1..] {
                    match name[0] {
                        b'L' => list.push_front(value.to_vec()),
                        _ => list.push_back(value.to_vec()),
                    }
                }
                number(list.len())
            }
            (b"LPOP", [key]) => match self.values.get_mut(&place(key)) {
                None => NONE.to_vec(),
                Some(Value::Text(_)) => return Err(WRONG_TYPE.into()),
                Some(Value::List(list)) => {
                    let first =
                        list.pop_front().map_or_else(|| NONE.to_vec(), |first| bulk(&first));
                    if list.is_empty() {
                        self.values.remove(&place(key));
                    }
                    first
                }
            },
            (b"FLUSHALL", _) => {
                self.values.clear();
                OK.to_vec()
            }
            (b"SELECT", [database]) => {
                let database = str::from_utf8(database).ok().and_then(|text| text.parse().ok());
                let in_range = database.filter(|database| *database < DATABASES);
                client.database = in_range.ok_or("ERR DB index is out of range")?;
                OK.to_vec()
            }
            (b"HELLO", [] | [b"2"]) => {
                let words =
                    |words: &[&str]| words.iter().map(|word| bulk(word.as_bytes())).collect();
                let mut fields: Vec<_> =
                    words(&["server", "trunkline", "version", "7.0.0", "proto"]);
                fields.push(number(2));
                array(fields)
            }
            (b"HELLO", _) => return Err("NOPROTO unsupported protocol version".into()),
            (b"CLIENT", [_, ..]) => OK.to_vec(),
            (b"COMMAND", _) => array(Vec::new()),
            // redis-benchmark asks for some settings, and complains if there are none.
            (b"CONFIG", [get, name]) if get.eq_ignore_ascii_case(b"GET") => {
                array(vec![bulk(name), bulk(b"")])
            }
            _ if is_known(&name) => {
                let name = shown(&name);
                return Err(format!("ERR wrong number of arguments for '{name}' command"));
            }
            _ => unknown(&name),
        })
    }

    /// The text of a key, which is empty if there is none yet.
    fn text(&mut self, place: (u32, Vec<u8>)) -> Result<&mut Vec<u8>, String> {
        match self.values.entry(place).or_insert_with(|| Value::Text(Vec::new())) {
            Value::Text(text) => Ok(text),
            Value::List(_) => Err(WRONG_TYPE.into()),
        }
    }
}

fn is_known(name: &[u8]) -> bool {
    KNOWN.iter().any(|known| known.as_bytes() == name)
}

/// A name for a line: what a client sends must not end it.
fn shown(name: &[u8]) -> String {
    name[..name.len().min(64)].escape_ascii().to_string().to_lowercase()
}

fn unknown(name: &[u8]) -> Vec<u8> {
    error(&format!("ERR unknown command '{}'", shown(name)))
}

fn error(why: &str) -> Vec<u8> {
    format!("-{why}\r\n").into_bytes()
}

fn number(number: usize) -> Vec<u8> {
    format!(":{number}\r\n").into_bytes()
}

fn bulk(text: &[u8]) -> Vec<u8> {
    let mut reply = format!("${}\r\n", text.len()).into_bytes();
    reply.extend_from_slice(text);
    reply.extend_from_slice(b"\r\n");
    reply
}

fn array(elements: Vec<Vec<u8>>) -> Vec<u8> {
    let mut reply = format!("*{}\r\n", elements.len()).into_bytes();
    reply.extend(elements.into_iter().flatten());
    reply
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The replies to one command a line.
    fn ask(store: &mut Store, client: u64, line: &str) -> String {
        let words: Vec<_> = line.split(' ').map(|word| bulk(word.as_bytes())).collect();
        let as_array = store.answer(client, &array(words));
        String::from_utf8(as_array).expect("text").replace("\r\n", " ").trim_end().to_string()
    }

    #[test]
    fn commands() {
        let mut store = Store::default();
        let mut check =
            |line: &str, reply: &str| assert_eq!(ask(&mut store, 1, line), reply, "{line}");
        check("PING", "+PONG");
        check("ping hello", "$5 hello");
        check("ECHO hello", "$5 hello");
        check("GET a", "$-1");
        check("SET a 1", "+OK");
        check("SET a 2 NX", "$-1");
        check("SET b 2 XX", "$-1");
        check("SET b 2 nx", "+OK");
        check("SET a 9 EX 5", "-ERR syntax error; this fake knows NX and XX alone");
        check("MGET a none b", "*3 $1 1 $-1 $1 2");
        check("INCR a", ":2");
        check("INCR count", ":1");
        check("APPEND a 5", ":2");
        check("GET a", "$2 25");
        check("MSET a x c y", "+OK");
        check("MSET a x c", "-ERR wrong number of arguments for 'mset' command");
        check("INCR a", "-ERR value is not an integer or out of range");
        check("SET big 9223372036854775807", "+OK");
        check("INCR big", "-ERR value is not an integer or out of range");
        check("EXISTS a a none", ":2");
        check("DEL a a none", ":1");
        check("LPUSH list 1 2", ":2");
        check("RPUSH list 3", ":3");
        check("LPOP list", "$1 2");
        check("GET list", &format!("-{WRONG_TYPE}"));
        check("APPEND list x", &format!("-{WRONG_TYPE}"));
        check("RPUSH b x", &format!("-{WRONG_TYPE}"));
        check("LPOP b", &format!("-{WRONG_TYPE}"));
        check("MGET list", "*1 $-1");
        check("LPOP list", "$1 1");
        check("LPOP list", "$1 3");
        check("EXISTS list", ":0");
        check("CLIENT SETNAME x", "+OK");
        check("COMMAND DOCS", "*0");
        check("CONFIG GET save", "*2 $4 save $0");
        check("HELLO 3", "-NOPROTO unsupported protocol version");
        check("HELLO", "*6 $6 server $9 trunkline $7 version $5 7.0.0 $5 proto :2");
        check("GET", "-ERR wrong number of arguments for 'get' command");
        check("ZADD z 1 a", "-ERR unknown command 'zadd'");
        check("FLUSHALL", "+OK");
        check("EXISTS b c", ":0");
    }

    #[test]
    fn a_connection_has_a_database_and_a_transaction_of_its_own() {
        let mut store = Store::default();
        let mut check = |client: u64, line: &str, reply: &str| {
            assert_eq!(ask(&mut store, client, line), reply, "{line}")
        };
        check(1, "SELECT 3", "+OK");
        check(1, "SET a third", "+OK");
        check(2, "GET a", "$-1");
        check(1, "SELECT 16", "-ERR DB index is out of range");
        check(1, "GET a", "$5 third");
        check(1, "EXEC", "-ERR EXEC without MULTI");
        check(1, "MULTI", "+OK");
        check(1, "MULTI", "-ERR MULTI calls can not be nested");
        check(1, "INCR n", "+QUEUED");
        check(1, "GET", "+QUEUED");
        check(2, "GET n", "$-1");
        check(1, "EXEC", "*2 :1 -ERR wrong number of arguments for 'get' command");
        check(1, "MULTI", "+OK");
        check(1, "SET n 7", "+QUEUED");
        check(1, "DISCARD", "+OK");
        check(1, "MULTI", "+OK");
        check(1, "NONSENSE", "-ERR unknown command 'nonsense'");
        check(1, "EXEC", "-EXECABORT Transaction discarded because of previous errors.");
        check(1, "GET n", "$1 1");
        check(1, "MULTI", "+OK");
        check(1, "RESET", "+RESET");
        check(1, "GET n", "$-1");
        check(1, "SELECT 3", "+OK");
        store.left(1);
        assert_eq!(ask(&mut store, 1, "GET a"), "$-1");
    }

    #[test]
    fn words_are_what_they_are_however_long() {
        let long = vec![b'\n'; 100_000];
        let request = array(vec![bulk(b"SET"), bulk(&long), bulk(b""), bulk(b"$1\r\n")]);
        assert_eq!(words(&request), [&b"SET"[..], &long, b"", b"$1\r\n"]);
        assert_eq!(words(b" PING \thello\r\n"), [&b"PING"[..], b"hello"]);
        let mut store = Store::default();
        assert_eq!(store.answer(1, b"a\x00b\r\n"), b"-ERR unknown command 'a\\x00b'\r\n");
    }
}
