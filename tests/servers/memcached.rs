//! memcached.

use super::*;

pub(crate) fn server() -> Server {
    // It says so when it has bound its port.
    Server::start("server listening", |port, _| {
        let mut command = program("memcached");
        command.args(["-v", "-v", "-l", "127.0.0.1", "-p", &port.to_string(), "-U", "0"]);
        // Those threads would take seconds to end.
        command.args(["-o", "no_lru_maintainer,no_lru_crawler"]);
        // It refuses to be root's.
        if geteuid().is_root() {
            command.args(["-u", "root"]);
        }
        command
    })
}
