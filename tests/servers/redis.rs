//! Redis, by redis-cli and redis-benchmark.

use super::*;

pub(crate) fn server() -> Server {
    Server::start("ready to accept connections", |port, folder| {
        let mut command = program("redis-server");
        command.args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", ""]);
        command.arg("--dir").arg(folder);
        command
    })
}

fn cli(proxy: &Proxy) -> Command {
    let mut command = program("redis-cli");
    command.args(["-h", "127.0.0.1", "-p", &proxy.port.to_string()]);
    command
}

fn ask(proxy: &Proxy, words: &[&str]) -> String {
    succeed(cli(proxy).args(words), "").stdout()
}

pub(crate) fn commands() {
    let server = server();
    let proxy = Proxy::before(&server.address());
    assert_eq!(ask(&proxy, &["SET", "name", "trunkline"]), "OK\n");
    assert_eq!(ask(&proxy, &["GET", "name"]), "trunkline\n");
    assert_eq!(ask(&proxy, &["INCR", "count"]), "1\n");
    assert_eq!(proxy.stop().clean(), 3);
}

pub(crate) fn a_megabyte() {
    let server = server();
    let proxy = Proxy::before(&server.address());
    let value = text(1 << 20);
    let set = succeed(cli(&proxy).args(["-x", "SET", "big"]), &value);
    assert_eq!(set.stdout(), "OK\n");
    let got = ask(&proxy, &["GET", "big"]);
    assert!(got.trim_end() == value, "got {} bytes that are not those set", got.len());
    assert_eq!(proxy.stop().clean(), 2);
}

pub(crate) fn pipelined() {
    let server = server();
    let proxy = Proxy::before(&server.address());
    let commands: String = (0..10_000).map(|n| format!("SET key{n} value{n}\r\n")).collect();
    let said = succeed(cli(&proxy).arg("--pipe"), &commands).stdout();
    assert!(said.contains("errors: 0, replies: 10000"), "redis-cli --pipe said: {said}");
    assert_eq!(ask(&proxy, &["DBSIZE"]), "10000\n");
    assert_eq!(proxy.stop().clean(), 2);
}

pub(crate) fn published() {
    let server = server();
    let proxy = Proxy::before(&server.address());
    let subscriber = Program::start(cli(&proxy).args(["SUBSCRIBE", "news"]), "");
    subscriber.until_it_says("subscribe\nnews\n1\n");
    assert_eq!(ask(&proxy, &["PUBLISH", "news", "a trunk is up"]), "1\n");
    subscriber.until_it_says("message\nnews\na trunk is up\n");
    // It would wait for news for ever. Its socket is closed with nothing unread, so that is a clean end too.
    subscriber.signal(Signal::INT);
    subscriber.end();
    assert_eq!(proxy.stop().clean(), 2);
}

pub(crate) fn unix_socket() {
    let server = Server::start("ready to accept connections", |_, folder| {
        let mut command = program("redis-server");
        command.args(["--port", "0", "--save", ""]).arg("--dir").arg(folder);
        command.arg("--unixsocket").arg(folder.join("redis.sock"));
        command
    });
    let socket = server.folder.0.join("redis.sock");
    let proxy = Proxy::before(&format!("unix:{}", socket.display()));
    let value = text(100_000);
    assert_eq!(ask(&proxy, &["SET", "name", &value]), "OK\n");
    assert_eq!(ask(&proxy, &["GET", "name"]), format!("{value}\n"));
    assert_eq!(proxy.stop().clean(), 2);
}

pub(crate) fn benchmark() {
    let server = server();
    let proxy = Proxy::before(&server.address());
    let mut command = program("redis-benchmark");
    command.args(["-h", "127.0.0.1", "-p", &proxy.port.to_string()]);
    command.args(["-n", "5000", "-c", "20", "-P", "16", "-q", "-t", "set,get,lpush,lrange_100"]);
    let ended = succeed(&mut command, "");
    assert_eq!(ended.stderr(), "", "redis-benchmark complains");
    assert!(ended.stdout().contains("requests per second"), "it said: {}", ended.stdout());
    assert!(proxy.stop().clean() > 80);
}
