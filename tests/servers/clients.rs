//! Clients that tests/run installs, from PyPI and npm, and the scripts of this folder that use them.

use super::*;
use std::path::PathBuf;

/// What each is called, where it is among those that are installed, and who has it.
const CLIENTS: &[(&str, &str, &str)] = &[
    ("toxiproxy-python", "python/toxiproxy", "PyPI"),
    ("redis-py", "python/redis", "PyPI"),
    ("pymemcache", "python/pymemcache", "PyPI"),
    ("requests", "python/requests", "PyPI"),
    ("httpx", "python/httpx", "PyPI"),
    ("websockets", "python/websockets", "PyPI"),
    ("toxiproxy-node-client", "node/node_modules/toxiproxy-node-client", "npm"),
    ("ioredis", "node/node_modules/ioredis", "npm"),
];

/// If this is one of the clients: whether it is there, and who has it.
pub(crate) fn client(name: &str) -> Option<(bool, &'static str)> {
    let (_, place, registry) = CLIENTS.iter().find(|client| client.0 == name)?;
    Some((folder().join(place).is_dir(), registry))
}

fn folder() -> PathBuf {
    let told = env::var_os("TRUNKLINE_CLIENTS").map(PathBuf::from);
    told.unwrap_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("target/clients"))
}

/// A script of this folder, with the clients of its language.
pub(crate) fn script(name: &str) -> Command {
    let mut command = if name.ends_with(".py") {
        let mut python = program("python3");
        // Nothing is written beside the scripts, which the checkout has.
        python.args(["-B", "-u"]).env("PYTHONPATH", folder().join("python")).env("NO_PROXY", "*");
        python
    } else {
        let mut node = program("node");
        node.env("NODE_PATH", folder().join("node/node_modules"));
        node
    };
    command.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/servers").join(name));
    command
}
