//! What every peer sent and saw, what the proxy told its owner, and the promises that are checked against both.

use crate::testing::Oracle;
use crate::{By, ConnId, Ended, Endpoint, Events, Report, Side};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// The book of one run. Clones are the same book.
#[derive(Clone, Default)]
pub(super) struct Book {
    pages: Arc<Mutex<Pages>>,
    /// Knows what can be known from the callbacks alone; the book knows the peers besides.
    oracle: Oracle,
}

#[derive(Default)]
struct Pages {
    peers: Vec<Record>,
    /// Which client a connection belongs to, and which backend served it.
    clients: BTreeMap<ConnId, usize>,
    backends: BTreeMap<ConnId, usize>,
    by_endpoint: BTreeMap<String, usize>,
    /// Toxics swallow bytes, or hold them for ever.
    lossy: bool,
    broken: Option<String>,
}

/// One peer, from its own point of view.
#[derive(Clone, Debug, Default)]
pub(super) struct Record {
    side: Option<Side>,
    conn: Option<ConnId>,
    /// Bytes that its socket took.
    pub(super) sent: u64,
    /// It ended its sending.
    pub(super) fin: bool,
    /// Bytes that it received.
    pub(super) received: u64,
    pub(super) saw: Option<Saw>,
    /// It left before it had seen the end: by a reset, by closing, by a failure of its own.
    pub(super) left: bool,
    /// It dawdles or stands still, so that a deadline may have to end its connection.
    pub(super) silent: bool,
}

/// The end of a stream, as a peer saw it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Saw {
    Fin,
    Reset,
}

/// The byte at a place of what a peer sends: another stream for each, so that a byte that goes astray shows.
pub(super) fn byte(peer: usize, place: u64) -> u8 {
    let mixed = (peer as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(place);
    (mixed.wrapping_mul(0xbf58_476d_1ce4_e5b9) >> 56) as u8
}

impl Book {
    fn pages(&self) -> MutexGuard<'_, Pages> {
        self.pages.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn add_client(&self, endpoint: &Endpoint) -> usize {
        let mut pages = self.pages();
        let number = pages.peers.len();
        pages.peers.push(Record { side: Some(Side::Client), ..Record::default() });
        pages.by_endpoint.insert(endpoint.to_string(), number);
        number
    }

    pub(super) fn add_backend(&self, conn: Option<ConnId>) -> usize {
        let mut pages = self.pages();
        let number = pages.peers.len();
        pages.peers.push(Record { side: Some(Side::Backend), conn, ..Record::default() });
        if let Some(conn) = conn
            && pages.backends.insert(conn, number).is_some()
        {
            pages.breaks(format!("connection {conn} was given two backends"));
        }
        number
    }

    pub(super) fn update(&self, peer: usize, change: impl FnOnce(&mut Record)) {
        change(&mut self.pages().peers[peer]);
    }

    pub(super) fn sent(&self, peer: usize) -> u64 {
        self.pages().peers[peer].sent
    }

    /// A peer received these bytes: they must be the next of what its partner sent.
    pub(super) fn received(&self, peer: usize, bytes: &[u8]) {
        let mut pages = self.pages();
        let place = pages.peers[peer].received;
        pages.peers[peer].received += bytes.len() as u64;
        let Some(partner) = pages.partner(peer) else {
            return pages.breaks(format!("peer {peer} received bytes and has no partner"));
        };
        let sent = pages.peers[partner].sent;
        if place + bytes.len() as u64 > sent {
            pages.breaks(format!(
                "peer {peer} received more than the {sent} bytes that peer {partner} sent"
            ));
        }
        let expected = (place..).map(|place| byte(partner, place));
        if !bytes.iter().copied().eq(expected.take(bytes.len())) {
            pages.breaks(format!(
                "peer {peer} received, from byte {place}, what peer {partner} did not send there"
            ));
        }
    }

    pub(super) fn broken(&self) -> Option<String> {
        self.pages().broken.clone().or_else(|| self.oracle.broken())
    }

    pub(super) fn breaks(&self, promise: String) {
        self.pages().breaks(promise);
    }

    /// From now on bytes may be lost by order, and the order is not always to blame for the end.
    pub(super) fn is_lossy(&self) {
        self.pages().lossy = true;
    }

    /// How many connections are open, as `Events` was told.
    pub(super) fn open(&self) -> usize {
        self.oracle.open()
    }

    /// The code of each ending.
    pub(super) fn endings(&self) -> Vec<(String, bool)> {
        self.oracle.ended().iter().map(|ended| (ended.code(), ended.clean)).collect()
    }

    /// Whether a peer left before its end.
    pub(super) fn left(&self, peer: usize) -> bool {
        self.pages().peers[peer].left
    }

    /// Whether a peer's connection was accepted.
    pub(super) fn is_served(&self, peer: usize) -> bool {
        self.pages().peers[peer].conn.is_some()
    }

    /// Checks, when all is over, what each promise says of the whole.
    pub(super) fn check(&self, report: &Report) {
        let mut pages = self.pages();
        if let Err(promises) = self.oracle.verdict(report) {
            promises.into_iter().for_each(|promise| pages.breaks(promise));
        }
        for ended in self.oracle.ended() {
            let conn = ended.conn;
            let nobody = Record::default();
            let client = pages.clients.get(&conn).map_or(&nobody, |peer| &pages.peers[*peer]);
            let backend = pages.backends.get(&conn).map_or(&nobody, |peer| &pages.peers[*peer]);
            if let Some(promise) = judge(&ended, client, backend, pages.lossy) {
                let promise = format!(
                    "connection {conn}: {promise}; {ended:?}; client: {client:?}; backend: {backend:?}"
                );
                pages.breaks(promise);
            }
        }
    }
}

/// The idle timeout of every run.
const IDLE: Duration = Duration::from_secs(3600);

/// The promise that a connection broke, if one.
fn judge(ended: &Ended, client: &Record, backend: &Record, lossy: bool) -> Option<&'static str> {
    // A toxic had its part in the end, as the cause or behind it.
    let cut = ended.by == By::Toxic || ended.cause.contains("; then ");
    let requests = (client, ended.from_client, ended.to_backend, backend);
    let replies = (backend, ended.from_backend, ended.to_client, client);
    for (from, read, written, to) in [requests, replies] {
        if !(to.received <= written && written <= read && read <= from.sent) {
            return Some("no byte is made up on the way");
        }
        if to.saw == Some(Saw::Fin) && !cut && !(from.fin && to.received == from.sent) {
            return Some("a clean end is shown only where everything was delivered");
        }
        if ended.clean && !(from.fin && written == from.sent) {
            return Some(
                "clean means that both sides ended their sending and every byte was passed on",
            );
        }
        // Whoever reads to the end gets all that the proxy had read of the other, whatever became of that other,
        // unless the proxy was told to stop or a deadline passed.
        let ours = cut || matches!(ended.by, By::Proxy | By::Timeout);
        let refused = ended.backend.is_none();
        if to.saw.is_some() && !to.left && !ours && !refused && !lossy && to.received != read {
            return Some("what a peer had sent is delivered before the other learns of its loss");
        }
    }
    // Once for what moves last, and once for what it lets move.
    if ended.lasted > 2 * IDLE {
        return Some("a connection on which nothing moves is ended by its deadline");
    }
    if ended.cause.contains("too long") && !(client.silent || backend.silent || lossy) {
        return Some("nobody is timed out but who stands still");
    }
    None
}

impl Pages {
    fn partner(&self, peer: usize) -> Option<usize> {
        let record = &self.peers[peer];
        let partners = match record.side? {
            Side::Client => &self.backends,
            Side::Backend => &self.clients,
        };
        partners.get(&record.conn?).copied()
    }

    /// The first that breaks is the one to look at.
    fn breaks(&mut self, promise: String) {
        self.broken.get_or_insert(promise);
    }
}

impl Events for Book {
    fn on_start(&self, listening: &[Endpoint]) {
        self.oracle.on_start(listening);
    }

    fn on_connect(&self, conn: ConnId, client: &Endpoint) {
        self.oracle.on_connect(conn, client);
        let mut pages = self.pages();
        match pages.by_endpoint.get(&client.to_string()).copied() {
            Some(peer) => {
                pages.peers[peer].conn = Some(conn);
                pages.clients.insert(conn, peer);
            }
            None => pages.breaks(format!("on_connect names a client {client} that there is not")),
        }
    }

    fn on_receive(&self, conn: ConnId, from: Side, bytes: &[u8]) {
        self.oracle.on_receive(conn, from, bytes);
    }

    fn on_close(&self, ended: &Ended) {
        self.oracle.on_close(ended);
    }

    fn on_shutdown(&self) {
        self.oracle.on_shutdown();
    }
}
