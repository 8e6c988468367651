//! The programs that take part, with the smallest settings that do the same work, each in one process with one thread.

use crate::drivers::until;
use crate::folder::Folder;
use crate::measure::{children, cpu_seconds, free_port, resident};
use crate::program::{find, program};
use std::collections::BTreeSet;
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::{fs, io};

/// What each is called here, its program, and the package of Debian and Ubuntu that has it.
const PROGRAMS: &[(&str, &str)] = &[
    ("redis-server", "redis-server"),
    ("redis-benchmark", "redis-tools"),
    ("haproxy", "haproxy"),
    ("nginx", "nginx and libnginx-mod-stream"),
    ("nutcracker", "nutcracker"),
    ("wrk", "wrk"),
    ("strace", "strace"),
];

/// Where a distribution puts nginx's module for plain TCP, unless it is built in.
const STREAM_MODULE: &str = "/usr/lib/nginx/modules/ngx_stream_module.so";

/// A process that serves on a port. Dropped, it is killed.
pub(crate) struct Running {
    child: Child,
    pub(crate) port: u16,
}

impl Running {
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn cpu(&self) -> f64 {
        // And of its workers.
        cpu_seconds(self.pid()) + children(self.pid()).into_iter().map(cpu_seconds).sum::<f64>()
    }

    pub(crate) fn resident(&self) -> u64 {
        resident(self.pid())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Starts programs, and keeps their settings in a folder that goes with it.
pub(crate) struct Stage {
    folder: Folder,
    ports: BTreeSet<u16>,
    missing: Vec<(&'static str, &'static str)>,
}

impl Stage {
    pub(crate) fn new() -> Stage {
        let is_missing = |(program, _): &(&str, &str)| find(program).is_none();
        let missing = PROGRAMS.iter().copied().filter(is_missing).collect();
        Stage { folder: Folder::new(), ports: BTreeSet::new(), missing }
    }

    /// Programs that are not installed, with their packages.
    pub(crate) fn missing(&self) -> &[(&'static str, &'static str)] {
        &self.missing
    }

    pub(crate) fn has(&self, program: &str) -> bool {
        !self.missing.iter().any(|(missing, _)| *missing == program)
    }

    pub(crate) fn port(&mut self) -> u16 {
        free_port(&mut self.ports)
    }

    fn file(&self, name: &str) -> String {
        self.folder.path(name)
    }

    /// Starts a program that is to listen on a port, and waits until it does.
    fn start(&self, command: &mut Command, port: u16) -> io::Result<Running> {
        let shown = format!("{command:?}");
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let mut running = Running { child: child.spawn()?, port };
        until(|| {
            if TcpStream::connect(("127.0.0.1", port)).is_ok() {
                return Ok(Some(()));
            }
            match running.child.try_wait()? {
                Some(status) => Err(io::Error::other(format!("{shown} has ended: {status}"))),
                None => Ok(None),
            }
        })?
        .ok_or_else(|| io::Error::other(format!("{shown} does not listen")))?;
        Ok(running)
    }

    pub(crate) fn redis(&mut self) -> io::Result<Running> {
        let port = self.port();
        let mut command = program("redis-server");
        command.arg("--port").arg(port.to_string()).args(["--save", "", "--appendonly", "no"]);
        command
            .args(["--bind", "127.0.0.1", "--maxclients", "20000"])
            .arg("--dir")
            .arg(&self.folder.0);
        self.start(&mut command, port)
    }

    /// This project's release program; flags of ours follow.
    pub(crate) fn trunkline(&mut self, backend: u16, flags: &[&str]) -> io::Result<Running> {
        let port = self.port();
        let mut command = Self::trunkline_command(port, backend, flags);
        self.start(&mut command, port)
    }

    pub(crate) fn trunkline_command(port: u16, backend: u16, flags: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_trunkline"));
        command.arg("--listen").arg(format!("127.0.0.1:{port}"));
        command.arg("--backend").arg(format!("127.0.0.1:{backend}"));
        // As the others have it.
        command.args(["--connect-timeout", "5s", "--log-level", "warn"]).args(flags);
        command
    }

    /// The same, and it need not listen yet.
    pub(crate) fn trunkline_at_once(&mut self, backend: u16) -> io::Result<Running> {
        let port = self.port();
        let mut command = Self::trunkline_command(port, backend, &[]);
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        Ok(Running { child: child.spawn()?, port })
    }

    /// `options` go into `defaults`.
    pub(crate) fn haproxy(&mut self, backend: u16, options: &str) -> io::Result<Running> {
        let port = self.port();
        let config = self.file(&format!("haproxy-{port}"));
        let text = format!(
            "global\n nbthread 1\n maxconn 5000\n\
             defaults\n timeout connect 5s\n timeout client 1h\n timeout server 1h\n{options}\n\
             listen it\n bind 127.0.0.1:{port}\n server one 127.0.0.1:{backend}\n"
        );
        fs::write(&config, text)?;
        self.start(program("haproxy").arg("-f").arg(&config), port)
    }

    /// `part` is one `http` or `stream` block, with PORT and PLACE in it.
    fn nginx(&mut self, part: &str) -> io::Result<Running> {
        let port = self.port();
        let config = self.file(&format!("nginx-{port}"));
        let place = self.folder.0.display().to_string();
        let module = if part.starts_with("stream") && Path::new(STREAM_MODULE).exists() {
            format!("load_module {STREAM_MODULE};\n")
        } else {
            String::new()
        };
        let text = format!(
            "{module}daemon off; master_process off; pid PLACE/nginx-PORT.pid; error_log PLACE/nginx-PORT.log;\n\
             events {{ worker_connections 20000; }}\n{part}\n"
        );
        let text = text.replace("PORT", &port.to_string()).replace("PLACE", &place);
        fs::write(&config, text)?;
        let mut command = program("nginx");
        command.arg("-p").arg(&self.folder.0).arg("-c").arg(&config);
        self.start(&mut command, port)
    }

    pub(crate) fn nginx_stream(&mut self, backend: u16) -> io::Result<Running> {
        self.nginx(&format!(
            "stream {{ access_log off; server {{ listen 127.0.0.1:PORT backlog=1024; proxy_pass 127.0.0.1:{backend}; }} }}"
        ))
    }

    /// Serves one small file.
    pub(crate) fn nginx_file(&mut self) -> io::Result<Running> {
        fs::write(self.file("index.html"), "a small file\n")?;
        self.nginx(&http("keepalive_requests 1000000000; root PLACE;"))
    }

    pub(crate) fn nginx_http(&mut self, backend: u16) -> io::Result<Running> {
        let part = http(
            "keepalive_requests 1000000000; location / { proxy_pass http://it; proxy_http_version 1.1; \
             proxy_set_header Connection \"\"; }",
        );
        let it = format!(
            "upstream it {{ server 127.0.0.1:{backend}; keepalive 64; keepalive_requests 1000000000; }} server {{"
        );
        self.nginx(&part.replacen("server {", &it, 1))
    }

    pub(crate) fn twemproxy(&mut self, backend: u16) -> io::Result<Running> {
        let (port, stats) = (self.port(), self.port());
        let config = self.file(&format!("nutcracker-{port}"));
        let text = format!(
            "it:\n  listen: 127.0.0.1:{port}\n  redis: true\n  distribution: ketama\n  hash: fnv1a_64\n  \
             server_connections: 1\n  servers:\n   - 127.0.0.1:{backend}:1\n"
        );
        fs::write(&config, text)?;
        let mut command = program("nutcracker");
        command.arg("-c").arg(&config).arg("-s").arg(stats.to_string()).args(["-v", "0"]);
        self.start(&mut command, port)
    }
}

fn http(server: &str) -> String {
    let temporary = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|name| format!("{name}_temp_path PLACE/{name}-PORT; "))
        .concat();
    format!(
        "http {{ access_log off; {temporary} server {{ listen 127.0.0.1:PORT backlog=1024; {server} }} }}"
    )
}
