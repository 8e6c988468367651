//! PostgreSQL, by psql and pgbench.

use super::*;

fn server() -> Server {
    Server::start("ready to accept connections", |port, folder| {
        let data = folder.join("data");
        if !data.exists() {
            if geteuid().is_root() {
                succeed(Command::new("chown").arg("postgres").arg(folder), "");
            }
            let mut initdb = as_postgres("initdb");
            initdb.args(["--auth=trust", "--username=postgres", "--no-sync", "--locale=C"]);
            succeed(initdb.arg("--pgdata").arg(&data).current_dir(folder), "");
        }
        let mut command = as_postgres("postgres");
        command.args(["-F", "-p", &port.to_string(), "-c", "unix_socket_directories="]);
        command.args(["-c", "listen_addresses=127.0.0.1"]).arg("-D").arg(data);
        command
    })
}

/// It refuses to run as root.
fn as_postgres(name: &str) -> Command {
    let wanted = program(name);
    if !geteuid().is_root() {
        return wanted;
    }
    let mut command = program("setpriv");
    command.args(["--reuid=postgres", "--regid=postgres", "--init-groups"]);
    command.arg(wanted.get_program());
    command
}

fn psql(proxy: &Proxy, statement: &str) -> Command {
    let mut command = program("psql");
    // -X: not with the settings of whoever runs this.
    command.args(["-X", "-A", "-t", "-h", "127.0.0.1", "-p", &proxy.port.to_string()]);
    command.args(["-U", "postgres", "-d", "postgres", "-c", statement]);
    command
}

fn fail(proxy: &Proxy, statement: &str) -> String {
    let ended = Program::start(&mut psql(proxy, statement), "").end();
    assert!(!ended.status.success(), "it was expected to fail: {ended}");
    ended.stderr()
}

pub(crate) fn load() {
    let server = server();
    let proxy = Proxy::before(&server.address());
    let pgbench = |words: &[&str]| {
        let mut command = program("pgbench");
        command.args(["-h", "127.0.0.1", "-p", &proxy.port.to_string(), "-U", "postgres"]);
        succeed(command.args(words).arg("postgres"), "")
    };
    pgbench(&["--initialize", "--quiet"]);
    let said = pgbench(&["--client=4", "--transactions=50"]).stdout();
    assert!(said.contains("actually processed: 200/200"), "pgbench said: {said}");
    // Version 14 and older do not count them; they abort at the first.
    let failed = said.lines().find(|line| line.contains("failed transactions"));
    assert!(failed.is_none_or(|line| line.contains(": 0 ")), "pgbench said: {said}");
    assert!(proxy.stop().clean() >= 5);
}

pub(crate) fn error() {
    let server = server();
    let proxy = Proxy::before(&server.address());
    let said = fail(&proxy, "select 1/0");
    assert!(said.contains("ERROR:  division by zero"), "psql said: {said}");
    assert_eq!(succeed(&mut psql(&proxy, "select 6*7"), "").stdout(), "42\n");
    assert_eq!(proxy.stop().clean(), 2);
}

/// The server ends the connection; why, is the last that it says.
pub(crate) fn last_words() {
    let server = server();
    let proxy = Proxy::before(&server.address());
    let said = fail(&proxy, "select pg_terminate_backend(pg_backend_pid())");
    let expected = "terminating connection due to administrator command";
    assert!(said.contains(expected), "psql said: {said}");
    assert_eq!(proxy.stop().clean(), 1);
}

/// The order to cancel goes through the proxy too, on a connection of its own.
pub(crate) fn cancel() {
    let server = server();
    let proxy = Proxy::before(&server.address());
    let statement = "do $$ begin raise notice 'begun'; perform pg_sleep(600); end $$";
    let waiting = Program::start(&mut psql(&proxy, statement), "");
    waiting.until_it_says("begun");
    waiting.signal(Signal::INT);
    let said = waiting.end().stderr();
    assert!(said.contains("canceling statement due to user request"), "psql said: {said}");
    assert_eq!(proxy.stop().clean(), 2);
}
