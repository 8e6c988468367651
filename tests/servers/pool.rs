//! Redis and nginx, by clients that share trunks.

use super::*;

pub(crate) fn redis() {
    let server = redis::server();
    let proxy = Proxy::pooling("resp", &server.address());
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

pub(crate) fn redis_benchmark() {
    let server = redis::server();
    let proxy = Proxy::pooling("resp", &server.address());
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

pub(crate) fn redis_published() {
    let server = redis::server();
    let proxy = Proxy::pooling("resp", &server.address());
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

#[cfg(feature = "http")]
pub(crate) fn http() {
    let server = nginx::server();
    let proxy = Proxy::pooling("http", &server.address());
    let got = succeed(&mut nginx::curl(&proxy, "small"), "").stdout();
    assert_eq!(got, "a small file\n");
    let big = succeed(&mut nginx::curl(&proxy, "big"), "").stdout();
    assert!(big == text(10 << 20), "{} bytes came of the big file", big.len());
    let mut upload = nginx::curl(&proxy, "uploaded/file");
    upload.args(["--upload-file", "-"]);
    let sent = text(3 << 20);
    succeed(&mut upload, &sent);
    let uploaded =
        fs::read_to_string(server.folder.0.join("www/uploaded/file")).expect("it is there");
    assert!(uploaded == sent, "{} bytes were uploaded", uploaded.len());
    proxy.stop().clean();
}

#[cfg(feature = "http")]
pub(crate) fn http_load() {
    // nginx closes each trunk behind its thousandth request: no request may be lost by that.
    let server = nginx::server();
    let proxy = Proxy::pooling("http", &server.address());
    nginx::load_through(&proxy);
    proxy.stop().clean_or_left_by_the_client();
}
