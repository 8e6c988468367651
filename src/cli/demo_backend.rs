//! The demo's backend: a key-value server that redis-cli and a person with `nc` can talk to.
//!
//! It knows PING, ECHO, SET, GET and QUIT, as RESP arrays or as plain lines. A toy: one thread a connection.

use std::collections::HashMap;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

type Store = Arc<Mutex<HashMap<Vec<u8>, Vec<u8>>>>;

/// The longest argument that it takes, in bytes.
const LONGEST: usize = 1 << 20;

/// Starts the server on a free port; it serves for as long as the process lives.
pub(crate) fn start() -> io::Result<SocketAddr> {
    let listener = TcpListener::bind(("127.0.0.1", 0))?;
    let address = listener.local_addr()?;
    let store = Store::default();
    thread::Builder::new().name("demo_backend".into()).spawn(move || {
        for socket in listener.incoming().flatten() {
            let store = Arc::clone(&store);
            // A client that breaks off ends its thread, and that is all there is to say.
            thread::spawn(move || serve(socket, &store));
        }
    })?;
    Ok(address)
}

fn serve(socket: TcpStream, store: &Store) -> io::Result<()> {
    socket.set_nodelay(true)?;
    let mut requests = BufReader::new(socket.try_clone()?);
    let mut replies = socket;
    while let Some(words) = request(&mut requests)? {
        if words.is_empty() {
            continue;
        }
        replies.write_all(&reply(&words, store))?;
        if words[0].eq_ignore_ascii_case(b"QUIT") {
            break;
        }
    }
    Ok(())
}

/// The next request; `None` at the end of the stream.
fn request(from: &mut impl BufRead) -> io::Result<Option<Vec<Vec<u8>>>> {
    let Some(line) = line(from)? else { return Ok(None) };
    let Some(count) = line.strip_prefix(b"*") else {
        let words = line.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty());
        return Ok(Some(words.map(<[u8]>::to_vec).collect()));
    };
    let mut words = Vec::new();
    for _ in 0..number(count, 1024)? {
        let Some(header) = self::line(from)? else { return Ok(None) };
        let length =
            header.strip_prefix(b"$").ok_or_else(|| invalid("a bulk string was expected"))?;
        let mut word = vec![0; number(length, LONGEST)? + 2];
        from.read_exact(&mut word)?;
        word.truncate(word.len() - 2);
        words.push(word);
    }
    Ok(Some(words))
}

fn line(from: &mut impl BufRead) -> io::Result<Option<Vec<u8>>> {
    let mut line = Vec::new();
    let read = from.take(LONGEST as u64).read_until(b'\n', &mut line)?;
    Ok((read > 0).then(|| line.trim_ascii_end().to_vec()))
}

fn number(digits: &[u8], most: usize) -> io::Result<usize> {
    let text = std::str::from_utf8(digits).map_err(|_| invalid("a number was expected"))?;
    match text.parse() {
        Ok(number) if number <= most => Ok(number),
        _ => Err(invalid("a number is out of range")),
    }
}

fn invalid(text: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, text)
}

fn reply(words: &[Vec<u8>], store: &Store) -> Vec<u8> {
    let name = words[0].to_ascii_uppercase();
    let mut store = store.lock().unwrap_or_else(PoisonError::into_inner);
    match (name.as_slice(), &words[1..]) {
        (b"PING", []) => b"+PONG\r\n".to_vec(),
        (b"PING" | b"ECHO", [text]) => bulk(text),
        (b"SET", [key, value]) => {
            store.insert(key.clone(), value.clone());
            b"+OK\r\n".to_vec()
        }
        (b"GET", [key]) => store.get(key).map_or_else(|| b"$-1\r\n".to_vec(), |value| bulk(value)),
        (b"QUIT", []) => b"+OK\r\n".to_vec(),
        // redis-cli asks for this when it starts.
        (b"COMMAND", _) => b"*0\r\n".to_vec(),
        _ => {
            let name = String::from_utf8_lossy(&words[0]).replace(['\r', '\n'], " ");
            format!("-ERR unknown command {name:?} here; try PING, ECHO, SET, GET or QUIT\r\n")
                .into_bytes()
        }
    }
}

fn bulk(bytes: &[u8]) -> Vec<u8> {
    let mut reply = format!("${}\r\n", bytes.len()).into_bytes();
    reply.extend_from_slice(bytes);
    reply.extend_from_slice(b"\r\n");
    reply
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_speaks_resp_and_plain_lines() {
        let store = Store::default();
        let check = |bytes: &str, expected: &str| {
            let words = request(&mut bytes.as_bytes()).expect("valid").expect("a request");
            assert_eq!(String::from_utf8_lossy(&reply(&words, &store)), expected, "{bytes:?}");
        };
        check("ping\r\n", "+PONG\r\n");
        check("ping\n", "+PONG\r\n");
        check("*1\r\n$4\r\nPING\r\n", "+PONG\r\n");
        check("SET name trunkline\n", "+OK\r\n");
        check("*2\r\n$3\r\nGET\r\n$4\r\nname\r\n", "$9\r\ntrunkline\r\n");
        check("GET nothing\n", "$-1\r\n");
        check(
            "FLUSHALL\n",
            "-ERR unknown command \"FLUSHALL\" here; try PING, ECHO, SET, GET or QUIT\r\n",
        );
        assert!(request(&mut &b"*1\r\n$99999999999\r\n"[..]).is_err());
        assert!(request(&mut &b"*-1\r\n"[..]).is_err());
        assert_eq!(request(&mut &b""[..]).expect("an end is no error"), None);
    }
}
