//! The promises of a proxy that can be checked by whoever hears its callbacks.

use crate::{ConnId, Ended, Endpoint, Events, Report, Side};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Hears every callback of a proxy and holds it to its word. Clones share what they heard.
///
/// The harness has one on every proxy, and panics with the broken promises when it stops. A test that builds a proxy
/// of its own gives it one, alone or before its own [`Events`]:
///
/// ```
/// use std::net::SocketAddr;
/// use trunkline::Proxy;
/// use trunkline::testing::{FakeBackend, Oracle, block_on};
///
/// let oracle = Oracle::default();
/// let backend = FakeBackend::echo().listen();
/// let listen = SocketAddr::from(([127, 0, 0, 1], 0));
/// let builder = Proxy::builder().listen(listen).backend(backend.address()).events(oracle.clone());
/// let report = block_on(builder.run(async { /* drive clients here */ }))?;
/// assert_eq!(oracle.verdict(&report), Ok(()));
/// # Ok::<(), trunkline::Error>(())
/// ```
///
/// What it holds a proxy to: `on_start` and `on_shutdown` are called once, the one before and the other behind all
/// else; each connection has one `on_connect`, then any number of `on_receive`, then one `on_close`; the bytes that
/// `on_receive` saw are those that [`Ended`] names; no more is passed on than was read; what is called clean has lost
/// nothing and was passed on in full; the report counts what was heard.
#[derive(Clone, Default)]
pub struct Oracle(Arc<Mutex<Heard>>);

#[derive(Default)]
struct Heard {
    connections: BTreeMap<ConnId, Connection>,
    started: u32,
    stopped: u32,
    broken: Vec<String>,
    framed: bool,
}

#[derive(Default)]
struct Connection {
    /// From the client, and from the backend.
    received: [u64; 2],
    ended: Option<Ended>,
}

/// A proxy that breaks a promise breaks it often; the first tell enough.
const MOST: usize = 10;

impl Oracle {
    /// For a proxy whose framing drops, replaces or answers requests: what was passed on is then not what was read, and
    /// the two are not compared.
    pub fn framed() -> Oracle {
        let oracle = Oracle::default();
        oracle.heard().framed = true;
        oracle
    }

    fn heard(&self) -> MutexGuard<'_, Heard> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many connections are open now.
    pub fn open(&self) -> usize {
        self.heard().connections.values().filter(|one| one.ended.is_none()).count()
    }

    /// The connections that have ended, oldest first.
    pub fn ended(&self) -> Vec<Ended> {
        self.heard().connections.values().filter_map(|one| one.ended.clone()).collect()
    }

    /// The first promise that was broken so far.
    pub fn broken(&self) -> Option<String> {
        self.heard().broken.first().cloned()
    }

    /// Judges a proxy that has ended, by its report.
    ///
    /// # Errors
    /// Each promise that was broken, the first ten at most; each says which one and of which connection.
    pub fn verdict(&self, report: &Report) -> Result<(), Vec<String>> {
        let heard = self.heard();
        let mut broken = heard.broken.clone();
        if (heard.started, heard.stopped) != (1, 1) {
            let times = (heard.started, heard.stopped);
            broken.push(format!("on_start and on_shutdown are called once each, not {times:?}"));
        }
        let judged = heard.connections.iter().filter_map(|(conn, one)| match &one.ended {
            None => Some(format!("connection {conn} was never closed")),
            Some(ended) => judge(one, ended, heard.framed)
                .map(|promise| format!("connection {conn}: {promise}; {ended:?}")),
        });
        broken.extend(judged.chain(miscounted(&heard, report)));
        broken.truncate(MOST);
        if broken.is_empty() { Ok(()) } else { Err(broken) }
    }
}

/// The promise that the end of a connection broke, if one.
fn judge(one: &Connection, ended: &Ended, framed: bool) -> Option<&'static str> {
    let read = [ended.from_client, ended.from_backend];
    let passed_on = [ended.to_backend, ended.to_client];
    if one.received != read {
        return Some("on_receive sees every byte, once");
    }
    if !framed && (passed_on[0] > read[0] || passed_on[1] > read[1]) {
        return Some("no byte is made up on the way");
    }
    let lost = if framed { ended.undelivered > 0 } else { passed_on != read || ended.lost() > 0 };
    if ended.clean && lost {
        return Some("a clean end loses nothing");
    }
    if ended.clean != ended.cause.is_empty() {
        return Some("an end has a cause just when it is not clean");
    }
    None
}

/// Where the report does not say what was heard.
fn miscounted(heard: &Heard, report: &Report) -> Option<String> {
    let ended = || heard.connections.values().filter_map(|one| one.ended.as_ref());
    let sum = |part: fn(&Ended) -> u64| ended().map(part).sum::<u64>();
    let counted = [
        heard.connections.len() as u64,
        ended().filter(|ended| ended.clean).count() as u64,
        ended().filter(|ended| !ended.clean).count() as u64,
        sum(|ended| ended.from_client),
        sum(|ended| ended.to_backend),
        sum(|ended| ended.from_backend),
        sum(|ended| ended.to_client),
    ];
    let reported = [
        report.accepted,
        report.clean,
        report.aborted,
        report.from_client,
        report.to_backend,
        report.from_backend,
        report.to_client,
    ];
    (counted != reported || report.open > 0).then(|| {
        format!("the callbacks told of {counted:?} (all, clean, aborted, bytes), but the report says {report:?}")
    })
}

impl Heard {
    fn breaks(&mut self, promise: String) {
        if self.broken.len() < MOST {
            self.broken.push(promise);
        }
    }
}

impl Events for Oracle {
    fn on_start(&self, _: &[Endpoint]) {
        let mut heard = self.heard();
        heard.started += 1;
        if !heard.connections.is_empty() {
            heard.breaks("on_start came behind an on_connect".into());
        }
    }

    fn on_connect(&self, conn: ConnId, _: &Endpoint) {
        let mut heard = self.heard();
        if heard.stopped > 0 {
            heard.breaks(format!("connection {conn} came behind on_shutdown"));
        }
        if heard.connections.insert(conn, Connection::default()).is_some() {
            heard.breaks(format!("on_connect was called twice for connection {conn}"));
        }
    }

    fn on_receive(&self, conn: ConnId, from: Side, bytes: &[u8]) {
        let mut heard = self.heard();
        match heard.connections.get_mut(&conn) {
            Some(one) if one.ended.is_none() => {
                one.received[usize::from(from == Side::Backend)] += bytes.len() as u64;
            }
            _ => heard.breaks(format!("on_receive outside of the life of connection {conn}")),
        }
    }

    fn on_close(&self, ended: &Ended) {
        let mut heard = self.heard();
        match heard.connections.get_mut(&ended.conn) {
            Some(one) if one.ended.is_none() => one.ended = Some(ended.clone()),
            _ => {
                let conn = ended.conn;
                heard.breaks(format!(
                    "on_close is called once, behind on_connect: connection {conn}"
                ));
            }
        }
    }

    fn on_shutdown(&self) {
        let mut heard = self.heard();
        heard.stopped += 1;
        if heard.connections.values().any(|one| one.ended.is_none()) {
            heard.breaks("on_shutdown came before the last on_close".into());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{By, Phase};
    use std::time::Duration;

    fn ended(conn: u64) -> Ended {
        let place = Endpoint::Name { host: "somewhere".into(), port: 1 };
        Ended {
            conn: ConnId::from(conn),
            client: place.clone(),
            backend: Some(place),
            from_client: 3,
            to_backend: 3,
            from_backend: 0,
            to_client: 0,
            undelivered: 0,
            answers: None,
            lasted: Duration::ZERO,
            connect: None,
            by: By::Peer(Side::Client),
            phase: Phase::Data,
            clean: true,
            cause: String::new(),
        }
    }

    fn report() -> Report {
        Report { accepted: 1, clean: 1, from_client: 3, to_backend: 3, ..Report::default() }
    }

    /// Tells of a good connection, but for one step; what is then said of it.
    fn check(spoil: impl Fn(&Oracle, &mut Ended, &mut Report), part: &str) {
        let (oracle, mut end, mut report) = (Oracle::default(), ended(1), report());
        oracle.on_start(&[]);
        oracle.on_connect(end.conn, &end.client);
        oracle.on_receive(end.conn, Side::Client, b"abc");
        spoil(&oracle, &mut end, &mut report);
        oracle.on_close(&end);
        oracle.on_shutdown();
        let verdict = oracle.verdict(&report).err().unwrap_or_default();
        if part.is_empty() {
            assert_eq!(verdict, [""; 0]);
        } else {
            assert!(verdict.iter().any(|said| said.contains(part)), "{part:?}: {verdict:?}");
        }
    }

    #[test]
    fn a_framing_may_drop_and_answer_but_not_lose() {
        let verdict = |oracle: Oracle, undelivered| {
            let end = Ended { to_backend: 1, to_client: 5, undelivered, ..ended(1) };
            oracle.on_start(&[]);
            oracle.on_connect(end.conn, &end.client);
            oracle.on_receive(end.conn, Side::Client, b"abc");
            oracle.on_close(&end);
            oracle.on_shutdown();
            oracle.verdict(&Report { to_backend: 1, to_client: 5, ..report() }).is_ok()
        };
        assert!(verdict(Oracle::framed(), 0));
        assert!(!verdict(Oracle::framed(), 1));
        assert!(!verdict(Oracle::default(), 0));
    }

    #[test]
    fn each_promise_is_missed_when_it_is_broken() {
        check(|_, _, _| {}, "");
        check(|oracle, _, _| oracle.on_start(&[]), "on_start came behind");
        check(|oracle, _, _| oracle.on_shutdown(), "on_shutdown came before the last on_close");
        check(|oracle, _, _| oracle.on_connect(ConnId::from(2), &ended(2).client), "never closed");
        check(|oracle, end, _| oracle.on_connect(end.conn, &end.client), "called twice");
        check(|oracle, end, _| oracle.on_receive(end.conn, Side::Client, b"d"), "every byte, once");
        check(
            |oracle, end, _| oracle.on_receive(end.conn, Side::Backend, b"d"),
            "every byte, once",
        );
        check(|oracle, _, _| oracle.on_receive(ConnId::from(2), Side::Client, b"d"), "outside of");
        check(|oracle, end, _| oracle.on_close(end), "on_close is called once");
        check(|_, end, _| end.to_backend = 4, "made up");
        check(|_, end, _| end.to_client = 1, "made up");
        check(|_, end, _| end.to_backend = 2, "loses nothing");
        check(|_, end, _| end.undelivered = 1, "loses nothing");
        check(|_, end, _| end.cause = "why".into(), "just when it is not clean");
        check(|_, end, _| end.clean = false, "just when it is not clean");
        check(|_, _, report| report.clean = 2, "the report says");
        check(|_, _, report| report.open = 1, "the report says");
        check(|_, _, report| report.to_client = 1, "the report says");
    }

    #[test]
    fn whoever_comes_behind_the_end_is_noticed() {
        let oracle = Oracle::default();
        oracle.on_start(&[]);
        oracle.on_shutdown();
        oracle.on_connect(ConnId::from(1), &ended(1).client);
        assert_eq!(oracle.broken().as_deref(), Some("connection 1 came behind on_shutdown"));
        assert_eq!(oracle.open(), 1);
    }
}
