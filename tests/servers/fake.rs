//! The real clients of a protocol, at the fakes of its servers.

use super::*;
use binary::PROGRAM;

/// A fake that listens, and where.
fn fake(protocol: &str) -> (Program, String) {
    let mut command = Command::new(PROGRAM);
    command.args(["fake", "--protocol", protocol, "--listen", "127.0.0.1:0"]);
    let fake = Program::start(&mut command, "");
    let port = fake.until("its port", |printed| {
        let said = printed.all();
        let (_, behind) = said.split_once("listening on 127.0.0.1:")?;
        behind.split_once(": ").map(|(port, _)| port.to_string())
    });
    (fake, port)
}

pub(crate) fn redis() {
    let (_fake, port) = fake("resp");
    let mut cli = program("redis-cli");
    let said = succeed(
        cli.args(["-p", &port]),
        "SET a 1\nINCR a\nMULTI\nGET a\nEXEC\nLPUSH l x\nLPOP l\n",
    );
    assert_eq!(said.stdout(), "OK\n2\nOK\nQUEUED\n2\n1\nx\n");
    for pipelined in ["1", "16"] {
        let mut command = program("redis-benchmark");
        command.args(["-p", &port, "-n", "2000", "-c", "20", "-P", pipelined, "-q"]);
        command.args(["-t", "ping,set,get,incr,mset"]);
        let ended = succeed(&mut command, "");
        assert_eq!(ended.stderr(), "", "redis-benchmark complains");
        let told = ended.stdout().matches("requests per second").count();
        assert_eq!(told, 6, "it said: {}", ended.stdout());
    }
}

#[cfg(feature = "http")]
pub(crate) fn http() {
    let (_fake, port) = fake("http");
    let sent = text(300_000);
    let curl = |path: &str, flags: &[&str], input: &str| {
        let mut command = program("curl");
        command.args(["--silent", "--show-error", "--fail"]).args(flags);
        command.arg(format!("http://127.0.0.1:{port}/{path}"));
        succeed(&mut command, input).stdout()
    };
    // From a pipe it comes in chunks.
    assert_eq!(curl("a", &["--upload-file", "-"], &sent), "");
    assert!(curl("a", &[], "") == sent);
    assert!(curl("a?chunked", &[], "") == sent);
    assert_eq!(curl("b", &["--data", "one", "--header", "Expect: 100-continue"], ""), "3\n");
    assert_eq!(curl("b", &["--data", "one"], ""), "6\n");
    assert!(curl("b", &["--head"], "").contains("Content-Length: 6\r\n"));
    assert_eq!(curl("b", &["--request", "DELETE"], ""), "");
}
