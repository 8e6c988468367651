//! Redis, memcached, nginx and others, by clients that share trunks.

use super::*;
use std::io::Read;
use std::net::TcpStream;

pub(crate) fn redis(mode: Mode) {
    let server = redis::server();
    let proxy = Proxy::sharing(mode, "resp", &server.address());
    let ask = |words: &[&str]| {
        let mut command = program("redis-cli");
        command.args(["-p", &proxy.port.to_string()]).args(words);
        succeed(&mut command, "").stdout()
    };
    assert_eq!(ask(&["SET", "name", "trunk"]), "OK\n");
    assert_eq!(ask(&["GET", "name"]), "trunk\n");
    // A client that is pinned, and what it has left behind for the next one: nothing.
    let mut command = program("redis-cli");
    command.args(["-p", &proxy.port.to_string()]);
    let said = succeed(&mut command, "SELECT 3\nSET name other\nMULTI\nGET name\nEXEC\n").stdout();
    assert_eq!(said, "OK\nOK\nOK\nQUEUED\nother\n");
    assert_eq!(ask(&["GET", "name"]), "trunk\n");
    assert!(ask(&["SHUTDOWN"]).contains("SHUTDOWN is refused"));
    assert_eq!(ask(&["BLPOP", "nothing", "0.1"]), "\n");
    proxy.stop().clean();
}

pub(crate) fn redis_benchmark(mode: Mode) {
    let server = redis::server();
    let proxy = Proxy::sharing(mode, "resp", &server.address());
    for pipelined in ["1", "16"] {
        let mut command = program("redis-benchmark");
        command.args(["-h", "127.0.0.1", "-p", &proxy.port.to_string()]);
        command.args(["-n", "5000", "-c", "50", "-P", pipelined, "-q"]);
        command.args(["-t", "set,get,lpush,lrange_100"]);
        let ended = succeed(&mut command, "");
        assert_eq!(ended.stderr(), "", "redis-benchmark complains");
        assert!(ended.stdout().contains("requests per second"), "it said: {}", ended.stdout());
    }
    let mut clients = program("redis-cli");
    clients.args(["-p", &server.port.to_string(), "CLIENT", "LIST"]);
    let clients = succeed(&mut clients, "").stdout();
    assert!(clients.lines().count() <= 9, "eight trunks and who asks:\n{clients}");
    // It leaves when it has counted enough, be there replies on their way or not.
    proxy.stop().clean_or_left_by_the_client();
}

pub(crate) fn redis_published(mode: Mode) {
    let server = redis::server();
    let proxy = Proxy::sharing(mode, "resp", &server.address());
    let port = proxy.port.to_string();
    let subscriber =
        Program::start(program("redis-cli").args(["-p", &port, "SUBSCRIBE", "news"]), "");
    subscriber.until_it_says("subscribe\nnews\n1\n");
    let mut publish = program("redis-cli");
    publish.args(["-p", &port, "PUBLISH", "news", "a trunk is up"]);
    assert_eq!(succeed(&mut publish, "").stdout(), "1\n");
    subscriber.until_it_says("message\nnews\na trunk is up\n");
    subscriber.signal(Signal::INT);
    subscriber.end();
    proxy.stop().clean();
}

/// Runs a script of this folder before the servers at these ports. It stops at the first thing that is not so.
fn run(name: &str, arguments: &[&str], ports: &[u16]) {
    let mut script = clients::script(name);
    script.args(arguments).args(ports.iter().map(u16::to_string));
    let ended = succeed(&mut script, "");
    assert_eq!(ended.stderr(), "", "{name} complains");
    assert_ne!(ended.stdout(), "", "{name} has shown nothing");
}

pub(crate) fn redis_py(mode: Mode) {
    let server = redis::server();
    let proxy = Proxy::sharing(mode, "resp", &server.address());
    run("redis_py.py", &[], &[proxy.port]);
    proxy.stop().clean();
}

pub(crate) fn ioredis(mode: Mode) {
    let server = redis::server();
    let proxy = Proxy::sharing(mode, "resp", &server.address());
    run("ioredis.mjs", &[], &[proxy.port]);
    proxy.stop().clean();
}

pub(crate) fn a_thousand_clients(mode: Mode) {
    const CLIENTS: usize = 1000;
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    setrlimit(Resource::Nofile, limit).expect("a soft limit may be raised to the hard one");
    let server = redis::server();
    let more = ["--trunks", "8", "--max-conn", "1000"];
    let proxy = Proxy::sharing_with(mode, "resp", &server.address(), &more);
    let connect = |port| {
        let client = TcpStream::connect(("127.0.0.1", port)).expect("it listens");
        client.set_read_timeout(Some(PATIENCE)).expect("a socket");
        client
    };
    let figure = |section: &str, name: &str| -> usize {
        let mut info = program("redis-cli");
        info.args(["-p", &server.port.to_string(), "INFO", section]);
        let said = succeed(&mut info, "").stdout();
        let line = said.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        line.and_then(|number| number.trim().parse().ok()).expect("Redis has this figure")
    };
    let mut clients: Vec<TcpStream> = (0..CLIENTS).map(|_| connect(proxy.port)).collect();
    for round in 0..3 {
        for (number, client) in clients.iter_mut().enumerate() {
            let requests =
                format!("PING\r\nSET key{number} {number}-{round}\r\nGET key{number}\r\n");
            client.write_all(requests.as_bytes()).expect("it reads");
        }
        let connected = figure("clients", "connected_clients");
        assert!(connected <= 9, "{connected} connections: more than eight trunks and who asks");
        for (number, client) in clients.iter_mut().enumerate() {
            let value = format!("{number}-{round}");
            let expected = format!("+PONG\r\n+OK\r\n${}\r\n{value}\r\n", value.len());
            let mut got = vec![0; expected.len()];
            client.read_exact(&mut got).expect("it answers in time");
            assert_eq!(String::from_utf8_lossy(&got), expected, "client {number} in round {round}");
        }
    }
    // Not at any time in between either.
    let ever = figure("stats", "total_connections_received");
    assert!(
        ever <= 8 + 4,
        "{ever} connections: more than eight trunks and who has asked four times"
    );
    drop(clients);
    assert_eq!(proxy.stop().clean(), CLIENTS);
}

pub(crate) fn pymemcache(mode: Mode) {
    let server = memcached::server();
    let proxy = Proxy::sharing(mode, "memcached", &server.address());
    run("pymemcache_py.py", &[], &[proxy.port]);
    proxy.stop().clean();
}

/// libmemcached's test of whether a server is a memcached.
pub(crate) fn memccapable(mode: Mode) {
    let server = memcached::server();
    let proxy = Proxy::sharing(mode, "memcached", &server.address());
    let mut command = program("memccapable");
    command.args(["-a", "-h", "127.0.0.1", "-p", &proxy.port.to_string()]);
    let said = succeed(&mut command, "").stdout();
    assert!(said.ends_with("All tests passed\n"), "memccapable said: {said}");
    proxy.stop().clean();
}

#[cfg(feature = "http")]
pub(crate) fn curl(mode: Mode) {
    let server = nginx::server();
    let proxy = Proxy::sharing(mode, "http", &server.address());
    let ask = |flags: &[&str], path: &str, input: &str| {
        succeed(nginx::curl(&proxy, path).args(flags), input).stdout()
    };
    assert_eq!(ask(&[], "small", ""), "a small file\n");
    assert_eq!(ask(&["--range", "2-6"], "small", ""), "small");
    for version in ["--http1.0", "--http1.1"] {
        let head = ask(&["--head", version], "small", "");
        assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "a head: {head}");
        assert!(head.contains("\r\nContent-Length: 13\r\n"), "a head: {head}");
        let twice = ask(&[version, &format!("127.0.0.1:{}/small", proxy.port)], "small", "");
        assert_eq!(twice, "a small file\n".repeat(2));
    }
    let big = ask(&[], "big", "");
    assert!(big == text(10 << 20), "{} bytes came of the big file", big.len());
    let sent = text(3 << 20);
    let www = server.folder.0.join("www");
    let place = www.join("sent").display().to_string();
    fs::write(&place, &sent).expect("the test's folder can be written to");
    let expect = ["--header", "Expect: 100-continue"];
    for (name, flags) in [
        ("sized", &["--upload-file", &place][..]),
        ("expected", &["--upload-file", &place, expect[0], expect[1], "--expect100-timeout", "60"]),
        ("chunked", &["--upload-file", "-"]),
        ("old", &["--upload-file", &place, "--http1.0"]),
    ] {
        ask(flags, &format!("uploaded/{name}"), if name == "chunked" { &sent } else { "" });
        let uploaded = fs::read_to_string(www.join("uploaded").join(name)).expect("it is there");
        assert!(uploaded == sent, "{name}: {} bytes were uploaded", uploaded.len());
    }
    proxy.stop().clean();
}

/// nginx refuses what is too large before it has it: the client hears that, and its connection ends cleanly.
#[cfg(feature = "http")]
pub(crate) fn upload_refused(mode: Mode) {
    let server = nginx::server();
    let proxy = Proxy::sharing(mode, "http", &server.address());
    let place = server.folder.0.join("www/big");
    let mut upload = nginx::curl(&proxy, "uploaded/large");
    upload.arg("--upload-file").arg(place);
    upload.args(["--header", &format!("Content-Length: {}", 21 << 20)]);
    upload.args(["--header", "Expect: 100-continue", "--expect100-timeout", "60"]);
    let refused = Program::start(&mut upload, "").end();
    assert!(refused.stderr().contains("error: 413"), "{refused}");
    assert_eq!(proxy.stop().clean(), 1);
}

#[cfg(feature = "http")]
fn http_script(mode: Mode, client: &str) {
    let (nginx, server) = (nginx::server(), http_server());
    let proxies = [&nginx, &server].map(|to| Proxy::sharing(mode, "http", &to.address()));
    run("http_py.py", &[client], &[proxies[0].port, proxies[1].port]);
    // It leaves some while a reply is on its way.
    for proxy in proxies {
        proxy.stop().clean_or_left_by_the_client();
    }
}

/// One in Python, whose replies are of every kind.
#[cfg(feature = "http")]
pub(crate) fn http_server() -> Server {
    python_server("http_server.py")
}

#[cfg(feature = "http")]
fn python_server(script: &str) -> Server {
    Server::start("ready", |port, _| {
        let mut server = clients::script(script);
        server.arg(port.to_string());
        server
    })
}

#[cfg(feature = "http")]
pub(crate) fn requests(mode: Mode) {
    http_script(mode, "requests");
}

#[cfg(feature = "http")]
pub(crate) fn httpx(mode: Mode) {
    http_script(mode, "httpx");
}

/// Through an upgrade.
#[cfg(feature = "http")]
pub(crate) fn websockets(mode: Mode) {
    let server = python_server("websockets_echo.py");
    let proxy = Proxy::sharing(mode, "http", &server.address());
    run("websockets_py.py", &[], &[proxy.port]);
    proxy.stop().clean();
}

#[cfg(feature = "http")]
pub(crate) fn http_load(mode: Mode) {
    // nginx closes each trunk behind its thousandth request: no request may be lost by that.
    let server = nginx::server();
    let proxy = Proxy::sharing(mode, "http", &server.address());
    nginx::load_through(&proxy);
    let mut hey = program("hey");
    hey.args(["-n", "5000", "-c", "50", &format!("http://127.0.0.1:{}/small", proxy.port)]);
    let said = succeed(&mut hey, "").stdout();
    assert!(said.contains("[200]\t5000 responses"), "hey said: {said}");
    assert!(!said.contains("Error distribution"), "hey said: {said}");
    proxy.stop().clean_or_left_by_the_client();
}
