//! A small memcached. Its requests come in their plain form: see [`Memcached`](crate::framing::Memcached).

use super::Server;
use std::collections::HashMap;
use std::str::FromStr;

struct Item {
    flags: u32,
    data: Vec<u8>,
    cas: u64,
}

#[derive(Default)]
pub(super) struct Store {
    items: HashMap<Vec<u8>, Item>,
    /// The last that was given to an item.
    cas: u64,
}

const BAD_LINE: &[u8] = b"CLIENT_ERROR bad command line format\r\n";
const NOT_FOUND: &[u8] = b"NOT_FOUND\r\n";

impl Server for Store {
    fn answer(&mut self, _: u64, request: &[u8]) -> Vec<u8> {
        let end = request.iter().position(|byte| *byte == b'\n').map_or(request.len(), |at| at + 1);
        let (line, data) = request.split_at(end);
        let data = data.strip_suffix(b"\r\n").unwrap_or(data);
        let words = line.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty());
        let words: Vec<&[u8]> = words.collect();
        self.command(&words, data).unwrap_or_else(|| BAD_LINE.to_vec())
    }

    fn refusal(&self) -> Vec<u8> {
        b"SERVER_ERROR object too large for cache\r\n".to_vec()
    }
}

/// When a value is stored, and as what.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Storing {
    Set,
    Add,
    Replace,
    Append,
    Prepend,
}

/// What has come of it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Stored {
    Yes,
    No,
    /// It has been changed meanwhile.
    Exists,
    NotFound,
}

impl Store {
    /// None: something is missing on its line.
    fn command(&mut self, words: &[&[u8]], data: &[u8]) -> Option<Vec<u8>> {
        let (name, arguments) = words.split_first()?;
        Some(match (*name, arguments) {
            (b"get", keys) => self.values(keys, false),
            (b"gets", keys) => self.values(keys, true),
            (b"gat", [_, keys @ ..]) => self.values(keys, false),
            (b"gats", [_, keys @ ..]) => self.values(keys, true),
            (b"set" | b"add" | b"replace" | b"append" | b"prepend", [key, flags, ..]) => {
                let how = match *name {
                    b"set" => Storing::Set,
                    b"add" => Storing::Add,
                    b"replace" => Storing::Replace,
                    b"append" => Storing::Append,
                    _ => Storing::Prepend,
                };
                told(self.store(key, how, read(flags)?, data, None))
            }
            (b"cas", [key, flags, _, _, cas]) => {
                told(self.store(key, Storing::Set, read(flags)?, data, Some(read(cas)?)))
            }
            (b"delete", [key]) => match self.items.remove(*key) {
                Some(_) => b"DELETED\r\n".to_vec(),
                None => NOT_FOUND.to_vec(),
            },
            (b"incr" | b"decr", [key, by]) => {
                let Some(by) = read::<u64>(by) else {
                    return Some(b"CLIENT_ERROR invalid numeric delta argument\r\n".to_vec());
                };
                self.count(key, |before| match name[0] {
                    b'i' => before.wrapping_add(by),
                    _ => before.saturating_sub(by),
                })
            }
            (b"touch", [key, _]) => match self.items.contains_key(*key) {
                true => b"TOUCHED\r\n".to_vec(),
                false => NOT_FOUND.to_vec(),
            },
            (b"flush_all", _) => {
                self.items.clear();
                b"OK\r\n".to_vec()
            }
            (b"verbosity", _) => b"OK\r\n".to_vec(),
            // Some clients read the number.
            (b"version", _) => b"VERSION 1.6.0\r\n".to_vec(),
            (b"mn", _) => b"MN\r\n".to_vec(),
            (b"mg", [key, flags @ ..]) => self.meta_get(key, flags),
            (b"ms", [key, _, flags @ ..]) => self.meta_set(key, flags, data)?,
            (b"md", [key, flags @ ..]) => self.meta_delete(key, flags)?,
            _ => b"ERROR\r\n".to_vec(),
        })
    }

    fn values(&self, keys: &[&[u8]], with_cas: bool) -> Vec<u8> {
        let mut reply = Vec::new();
        for key in keys {
            let Some(Item { flags, data, cas }) = self.items.get(*key) else { continue };
            reply.extend_from_slice(b"VALUE ");
            reply.extend_from_slice(key);
            reply.extend_from_slice(format!(" {flags} {}", data.len()).as_bytes());
            if with_cas {
                reply.extend_from_slice(format!(" {cas}").as_bytes());
            }
            reply.extend_from_slice(b"\r\n");
            reply.extend_from_slice(data);
            reply.extend_from_slice(b"\r\n");
        }
        reply.extend_from_slice(b"END\r\n");
        reply
    }

    fn store(
        &mut self,
        key: &[u8],
        how: Storing,
        flags: u32,
        data: &[u8],
        cas: Option<u64>,
    ) -> Stored {
        let old = self.items.get(key);
        match (old, cas) {
            (None, Some(_)) => return Stored::NotFound,
            (Some(item), Some(cas)) if item.cas != cas => return Stored::Exists,
            _ => {}
        }
        let (flags, data) = match (how, old) {
            (Storing::Set, _) | (Storing::Add, None) | (Storing::Replace, Some(_)) => {
                (flags, data.to_vec())
            }
            (Storing::Append, Some(item)) => (item.flags, [&item.data, data].concat()),
            (Storing::Prepend, Some(item)) => (item.flags, [data, &item.data].concat()),
            _ => return Stored::No,
        };
        self.cas += 1;
        self.items.insert(key.to_vec(), Item { flags, data, cas: self.cas });
        Stored::Yes
    }

    fn count(&mut self, key: &[u8], next: impl FnOnce(u64) -> u64) -> Vec<u8> {
        let Some(item) = self.items.get_mut(key) else { return NOT_FOUND.to_vec() };
        let Some(before) = read(&item.data) else {
            let why = "CLIENT_ERROR cannot increment or decrement non-numeric value\r\n";
            return why.into();
        };
        let after = next(before).to_string();
        self.cas += 1;
        (item.data, item.cas) = (after.clone().into_bytes(), self.cas);
        format!("{after}\r\n").into_bytes()
    }

    fn meta_get(&self, key: &[u8], flags: &[&[u8]]) -> Vec<u8> {
        let Some(item) = self.items.get(key) else { return b"EN\r\n".to_vec() };
        let wanted = flags.contains(&&b"v"[..]);
        let mut reply = match wanted {
            true => format!("VA {}", item.data.len()).into_bytes(),
            false => b"HD".to_vec(),
        };
        returned(&mut reply, key, Some(item), flags);
        if wanted {
            reply.extend_from_slice(&item.data);
            reply.extend_from_slice(b"\r\n");
        }
        reply
    }

    fn meta_set(&mut self, key: &[u8], flags: &[&[u8]], data: &[u8]) -> Option<Vec<u8>> {
        let how = match token(flags, b'M').map(|mode| mode.first().map(u8::to_ascii_uppercase)) {
            None | Some(Some(b'S')) => Storing::Set,
            Some(Some(b'E')) => Storing::Add,
            Some(Some(b'A')) => Storing::Append,
            Some(Some(b'P')) => Storing::Prepend,
            Some(Some(b'R')) => Storing::Replace,
            _ => return None,
        };
        let client = token(flags, b'F').map_or(Some(0), read)?;
        let cas = token(flags, b'C').map(read).map_or(Some(None), |cas| cas.map(Some))?;
        let mut reply = match self.store(key, how, client, data, cas) {
            Stored::Yes => b"HD".to_vec(),
            Stored::No => b"NS".to_vec(),
            Stored::Exists => b"EX".to_vec(),
            Stored::NotFound => b"NF".to_vec(),
        };
        returned(&mut reply, key, self.items.get(key), flags);
        Some(reply)
    }

    fn meta_delete(&mut self, key: &[u8], flags: &[&[u8]]) -> Option<Vec<u8>> {
        let cas = token(flags, b'C').map(read).map_or(Some(None), |cas| cas.map(Some))?;
        let mut reply = match self.items.get(key) {
            None => b"NF".to_vec(),
            Some(item) if cas.is_some_and(|cas: u64| cas != item.cas) => b"EX".to_vec(),
            Some(_) => {
                self.items.remove(key);
                b"HD".to_vec()
            }
        };
        returned(&mut reply, key, None, flags);
        Some(reply)
    }
}

fn told(stored: Stored) -> Vec<u8> {
    match stored {
        Stored::Yes => b"STORED\r\n".to_vec(),
        Stored::No => b"NOT_STORED\r\n".to_vec(),
        Stored::Exists => b"EXISTS\r\n".to_vec(),
        Stored::NotFound => NOT_FOUND.to_vec(),
    }
}

/// What the flags ask for, in their order, and the end of the line.
fn returned(reply: &mut Vec<u8>, key: &[u8], item: Option<&Item>, flags: &[&[u8]]) {
    for flag in flags {
        let value = match (flag.first(), item) {
            (Some(b'k'), _) => [b"k", key].concat(),
            (Some(b'O'), _) => flag.to_vec(),
            (Some(b'c'), Some(item)) => format!("c{}", item.cas).into_bytes(),
            (Some(b'f'), Some(item)) => format!("f{}", item.flags).into_bytes(),
            (Some(b's'), Some(item)) => format!("s{}", item.data.len()).into_bytes(),
            // Nothing expires.
            (Some(b't'), Some(_)) => b"t-1".to_vec(),
            _ => continue,
        };
        reply.push(b' ');
        reply.extend_from_slice(&value);
    }
    reply.extend_from_slice(b"\r\n");
}

/// What is behind the letter of a flag, if it is there.
fn token<'a>(flags: &[&'a [u8]], letter: u8) -> Option<&'a [u8]> {
    flags.iter().find_map(|flag| flag.strip_prefix(&[letter]))
}

fn read<T: FromStr>(word: &[u8]) -> Option<T> {
    str::from_utf8(word).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands() {
        let mut store = Store::default();
        let mut check = |request: &str, reply: &str| {
            let request = request.replace('|', "\r\n") + "\r\n";
            let said = String::from_utf8(store.answer(1, request.as_bytes())).expect("text");
            assert_eq!(said, reply.replace('|', "\r\n") + "\r\n", "{request}");
        };
        check("get a", "END");
        check("set a 7 0 3|one", "STORED");
        check("get a none a", "VALUE a 7 3|one|VALUE a 7 3|one|END");
        check("gets a", "VALUE a 7 3 1|one|END");
        check("gat 60 a", "VALUE a 7 3|one|END");
        check("gats 60 a", "VALUE a 7 3 1|one|END");
        check("add a 0 0 1|x", "NOT_STORED");
        check("add b 0 0 1|x", "STORED");
        check("replace c 0 0 1|x", "NOT_STORED");
        check("append a 0 0 1|!", "STORED");
        check("prepend a 0 0 1|>", "STORED");
        check("get a", "VALUE a 7 5|>one!|END");
        check("append none 0 0 1|!", "NOT_STORED");
        check("cas a 0 0 1 1|x", "EXISTS");
        check("cas none 0 0 1 1|x", "NOT_FOUND");
        check("cas a 0 0 1 4|5", "STORED");
        check("incr a 2", "7");
        check("decr a 9", "0");
        check("incr a x", "CLIENT_ERROR invalid numeric delta argument");
        check("incr b 1", "CLIENT_ERROR cannot increment or decrement non-numeric value");
        check("incr none 1", "NOT_FOUND");
        check("set big 0 0 20|18446744073709551615", "STORED");
        check("incr big 2", "1");
        check("touch a 5", "TOUCHED");
        check("touch none 5", "NOT_FOUND");
        check("delete a", "DELETED");
        check("delete a", "NOT_FOUND");
        check("version", "VERSION 1.6.0");
        check("verbosity 1", "OK");
        check("stats", "ERROR");
        check("set a x 0 1|x", "CLIENT_ERROR bad command line format");
        check("flush_all", "OK");
        check("get b", "END");
    }

    #[test]
    fn meta_commands() {
        let mut store = Store::default();
        let mut check = |request: &str, reply: &str| {
            let request = request.replace('|', "\r\n") + "\r\n";
            let said = String::from_utf8(store.answer(1, request.as_bytes())).expect("text");
            assert_eq!(said, reply.replace('|', "\r\n") + "\r\n", "{request}");
        };
        check("mn", "MN");
        check("mg a v", "EN");
        check("ms a 3 F7 c k O9|one", "HD c1 ka O9");
        check("mg a v f c s t k O9 h", "VA 3 f7 c1 s3 t-1 ka O9|one");
        check("mg a k", "HD ka");
        check("ms a 1 ME|x", "NS");
        check("ms a 1 MA|!", "HD");
        check("ms a 1 MP|>", "HD");
        check("ms none 1 MR|x", "NS");
        check("ms a 1 Mx|x", "CLIENT_ERROR bad command line format");
        check("ms a 1 C1|x", "EX");
        check("ms none 1 C1|x", "NF");
        check("mg a v", "VA 5|>one!");
        check("md a C1", "EX");
        check("md a C3 O5", "HD O5");
        check("md a", "NF");
    }
}
