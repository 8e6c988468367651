//! Where to listen and where to connect: `127.0.0.1:9501`, `[::1]:9501`, `db.internal:5432`, `unix:/run/app.sock`.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;

/// A place that a socket can listen on or connect to.
///
/// ```
/// use trunkline::Endpoint;
/// let endpoint: Endpoint = "unix:/run/app.sock".parse()?;
/// assert_eq!(endpoint, Endpoint::Unix("/run/app.sock".into()));
/// assert_eq!("[::1]:80".parse::<Endpoint>()?.to_string(), "[::1]:80");
/// assert!("localhost".parse::<Endpoint>().is_err());
/// # Ok::<(), String>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Endpoint {
    /// An IP address and a port.
    Ip(SocketAddr),
    /// A host name, resolved each time a connection is made, and a port.
    Name {
        /// The name, as the resolver takes it.
        host: String,
        /// The TCP port.
        port: u16,
    },
    /// The path of a unix-domain stream socket.
    Unix(PathBuf),
}

/// The longest path that fits the kernel's `sockaddr_un` on Linux, with its closing NUL (unix(7)).
const UNIX_PATH_MAX: usize = 107;

impl Endpoint {
    /// The TCP port, if there is one.
    pub fn port(&self) -> Option<u16> {
        match self {
            Endpoint::Ip(address) => Some(address.port()),
            Endpoint::Name { port, .. } => Some(*port),
            Endpoint::Unix(_) => None,
        }
    }

    /// Whether connecting here ends up at `listen`, as far as can be told without asking the resolver.
    pub(crate) fn reaches(&self, listen: &Endpoint) -> bool {
        let is_local = |endpoint: &Endpoint| match endpoint {
            Endpoint::Ip(address) => address.ip().is_loopback() || address.ip().is_unspecified(),
            Endpoint::Name { host, .. } => host == "localhost",
            Endpoint::Unix(_) => false,
        };
        let is_everywhere = |endpoint: &Endpoint| match endpoint {
            Endpoint::Ip(address) => address.ip().is_unspecified(),
            _ => false,
        };
        let named_local =
            |endpoint: &Endpoint| matches!(endpoint, Endpoint::Name { .. }) && is_local(endpoint);
        let same_port = self.port().is_some() && self.port() == listen.port();
        let same_place = (is_everywhere(listen) && is_local(self))
            || (named_local(self) && is_local(listen))
            || (named_local(listen) && is_local(self))
            || (is_everywhere(self) && is_local(listen));
        self == listen || (same_port && same_place)
    }
}

impl FromStr for Endpoint {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Some(path) = text.strip_prefix("unix:") {
            return unix(text, path);
        }
        if let Ok(address) = text.parse() {
            return Ok(Endpoint::Ip(address));
        }
        let forms = "write HOST:PORT, [IPV6]:PORT or unix:/PATH";
        let Some((host, port)) = text.rsplit_once(':').filter(|_| !text.ends_with(']')) else {
            return Err(format!("{text:?} has no port; {forms}"));
        };
        if text.contains('%') {
            return Err(format!(
                "{text:?} has a scope; write its number, not a name: [fe80::1%2]:80"
            ));
        }
        if host.contains(':') && !host.starts_with('[') {
            return Err(format!(
                "{text:?} is ambiguous; put the IPv6 address in brackets: [{host}]:{port}"
            ));
        }
        let port = port.parse().map_err(|_| {
            format!("{text:?} has no valid port: {port:?} is not a number from 0 to 65535")
        })?;
        if host.is_empty() {
            return Err(format!(
                "{text:?} has no host; write 127.0.0.1:{port} for this machine only, or 0.0.0.0:{port} for all of IPv4"
            ));
        }
        let valid = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
        // A name whose last part is a number is a mistyped address (URL standard, "ends in a number").
        let is_number = |part: &str| part.chars().all(|c| c.is_ascii_digit());
        if host.rsplit('.').next().is_some_and(is_number) {
            return Err(format!("{text:?} has no valid IPv4 address: {host:?}"));
        }
        if !host.chars().all(valid) {
            return Err(format!("{text:?} has no valid host name; {forms}"));
        }
        let host = host.to_string();
        Ok(Endpoint::Name { host, port })
    }
}

fn unix(text: &str, path: &str) -> Result<Endpoint, String> {
    if path.is_empty() {
        return Err(format!("{text:?} has no path; write unix:/PATH"));
    }
    if path.len() > UNIX_PATH_MAX {
        return Err(format!(
            "{text:?} is {} bytes long; the path of a unix socket may have {UNIX_PATH_MAX}",
            path.len()
        ));
    }
    if path.contains('\0') {
        return Err(format!("{text:?} has a NUL byte in its path"));
    }
    Ok(Endpoint::Unix(path.into()))
}

impl From<SocketAddr> for Endpoint {
    fn from(address: SocketAddr) -> Self {
        Endpoint::Ip(address)
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Endpoint::Ip(address) => address.fmt(f),
            Endpoint::Name { host, port } => write!(f, "{host}:{port}"),
            Endpoint::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn forms() {
        let check = |text: &str, expected: Result<&str, &str>| match (text.parse(), expected) {
            (Ok::<Endpoint, _>(endpoint), Ok(shown)) => assert_eq!(endpoint.to_string(), shown),
            (Err(error), Err(part)) => assert!(error.contains(part), "{text}: {error}"),
            (got, expected) => panic!("{text}: {got:?}, expected {expected:?}"),
        };
        check("127.0.0.1:9501", Ok("127.0.0.1:9501"));
        check("[::1]:80", Ok("[::1]:80"));
        check("db-1.internal:5432", Ok("db-1.internal:5432"));
        check("unix:/run/a b.sock", Ok("unix:/run/a b.sock"));
        check("unix:relative.sock", Ok("unix:relative.sock"));
        check("localhost", Err("has no port"));
        check("9501", Err("has no port"));
        check("::1:80", Err("put the IPv6 address in brackets: [::1]:80"));
        check(":80", Err("has no host"));
        check("host:", Err("no valid port"));
        check("host:65536", Err("no valid port"));
        check("ho st:1", Err("no valid host name"));
        check("http://x:1", Err("ambiguous"));
        check("[::1]", Err("has no port"));
        check("fe80::1%eth0:80", Err("has a scope"));
        check("[fe80::1%2]:80", Ok("[fe80::1%2]:80"));
        check("300.1.1.1:80", Err("no valid IPv4 address"));
        check("1.2.3.4.5:80", Err("no valid IPv4 address"));
        check("unix:", Err("has no path"));
        check(&format!("unix:/{}", "x".repeat(107)), Err("may have 107"));
    }

    #[test]
    fn a_proxy_before_itself_is_recognised() {
        let check = |backend: &str, listen: &str, expected: bool| {
            let (from, to): (Endpoint, Endpoint) =
                (backend.parse().expect(backend), listen.parse().expect(listen));
            assert_eq!(from.reaches(&to), expected, "{backend} {listen}");
        };
        check("127.0.0.1:1", "127.0.0.1:1", true);
        check("127.0.0.1:1", "127.0.0.2:1", false);
        check("127.0.0.1:1", "0.0.0.0:1", true);
        check("127.0.0.1:1", "0.0.0.0:2", false);
        check("localhost:1", "127.0.0.1:1", true);
        check("localhost:1", "[::]:1", true);
        check("127.0.0.1:1", "localhost:1", true);
        check("10.0.0.1:1", "0.0.0.0:1", false);
        check("db:1", "db:1", true);
        check("unix:/a", "unix:/a", true);
        check("unix:/a", "unix:/b", false);
    }

    proptest! {
        #[test]
        fn what_is_shown_reads_back(text in "([a-z0-9.-]{1,20}|\\[::[0-9a-f]{1,4}\\]|unix):[ -~]{0,30}") {
            if let Ok(endpoint) = text.parse::<Endpoint>() {
                prop_assert_eq!(endpoint.to_string().parse::<Endpoint>(), Ok(endpoint));
            }
        }

        #[test]
        fn no_text_panics(text in ".*") {
            let _ = text.parse::<Endpoint>();
        }
    }
}
