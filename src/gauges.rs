//! The figures of one connection, which its actors write and the directory reads.
//!
//! The one thing that actors share. Each figure has a single writer and is only ever read by others, one at a time,
//! so relaxed atomics are enough and no lock is needed; a message per chunk to somebody who counts would cost more
//! than the chunk. Only the marks have several writers: a reader marks the end of its stream before it passes it on,
//! so that who ended first is told by what caused what, and not by whose exit was looked at first.

use crate::socket::Socket;
use crate::{Answers, Phase, Side};
use std::sync::atomic::Ordering::{Relaxed, SeqCst};
use std::sync::atomic::{AtomicU8, AtomicU64, AtomicUsize};
use std::sync::{Arc, OnceLock, Weak};

/// Bytes each way, the phase, and how full the mailboxes were.
#[derive(Default)]
pub(crate) struct Gauges {
    client: SideGauges,
    backend: SideGauges,
    marks: AtomicU8,
    /// Where clients share trunks; written by the client_reader alone.
    requests: AtomicU64,
    replies: AtomicU64,
    errors: AtomicU64,
}

/// A backend has accepted.
const CONNECTED: u8 = 1;
/// The client has ended its sending.
const CLIENT_FIN: u8 = 2;
/// The backend has ended its sending.
const BACKEND_FIN: u8 = 4;
/// The backend did so first.
const BACKEND_FIRST: u8 = 8;
/// A socket has failed.
const BROKEN: u8 = 16;

#[derive(Default)]
struct SideGauges {
    /// For [`Gauges::pending`] alone. Weak, so that a figure never keeps a socket open.
    socket: OnceLock<Weak<dyn Socket>>,
    read: AtomicU64,
    written: AtomicU64,
    high_water: AtomicUsize,
}

impl Gauges {
    fn side(&self, side: Side) -> &SideGauges {
        match side {
            Side::Client => &self.client,
            Side::Backend => &self.backend,
        }
    }

    pub(crate) fn add_read(&self, from: Side, bytes: usize) {
        add(&self.side(from).read, bytes);
    }

    pub(crate) fn add_written(&self, to: Side, bytes: usize) {
        add(&self.side(to).written, bytes);
    }

    /// A request has begun.
    pub(crate) fn add_request(&self) {
        add(&self.requests, 1);
    }

    /// So many requests have got their replies.
    pub(crate) fn add_replies(&self, count: usize) {
        add(&self.replies, count);
    }

    /// A request was answered by an error of our own.
    pub(crate) fn add_error(&self) {
        add(&self.errors, 1);
    }

    pub(crate) fn answers(&self) -> Answers {
        Answers {
            requests: self.requests.load(Relaxed),
            replies: self.replies.load(Relaxed),
            errors: self.errors.load(Relaxed),
        }
    }

    /// The mailbox of the writer towards `to` was this full.
    pub(crate) fn saw_high_water(&self, to: Side, messages: usize) {
        self.side(to).high_water.store(messages, Relaxed);
    }

    /// A side has this socket, from now on.
    pub(crate) fn attach(&self, side: Side, socket: &Arc<dyn Socket>) {
        // A side gets its socket once.
        let _ = self.side(side).socket.set(Arc::downgrade(socket));
    }

    /// Bytes that the sockets took and that the peers' systems do not have yet. Costs a system call for each side.
    pub(crate) fn pending(&self) -> usize {
        let socket = |side: &SideGauges| side.socket.get().and_then(Weak::upgrade);
        let pending = |side| socket(side).map_or(0, |socket| socket.pending());
        pending(&self.client) + pending(&self.backend)
    }

    pub(crate) fn connected(&self) {
        self.marks.fetch_or(CONNECTED, SeqCst);
    }

    /// A peer has ended its sending; called before anybody else can learn of it.
    pub(crate) fn saw_fin(&self, from: Side) {
        let mark = |marks: u8| match from {
            Side::Client => marks | CLIENT_FIN,
            Side::Backend if marks & CLIENT_FIN == 0 => marks | BACKEND_FIN | BACKEND_FIRST,
            Side::Backend => marks | BACKEND_FIN,
        };
        // The closure always gives a value, so this cannot fail.
        let _ = self.marks.fetch_update(SeqCst, SeqCst, |marks| Some(mark(marks)));
    }

    pub(crate) fn broke(&self) {
        self.marks.fetch_or(BROKEN, SeqCst);
    }

    /// The peer that ended its sending first.
    pub(crate) fn first_fin(&self) -> Option<Side> {
        match self.marks.load(SeqCst) {
            marks if marks & BACKEND_FIRST != 0 => Some(Side::Backend),
            marks if marks & CLIENT_FIN != 0 => Some(Side::Client),
            _ => None,
        }
    }

    pub(crate) fn read(&self, from: Side) -> u64 {
        self.side(from).read.load(Relaxed)
    }

    pub(crate) fn written(&self, to: Side) -> u64 {
        self.side(to).written.load(Relaxed)
    }

    pub(crate) fn high_water(&self, to: Side) -> usize {
        self.side(to).high_water.load(Relaxed)
    }

    pub(crate) fn phase(&self) -> Phase {
        match self.marks.load(SeqCst) {
            marks if marks & CONNECTED == 0 => Phase::Connect,
            CONNECTED => Phase::Data,
            _ => Phase::HalfClosed,
        }
    }

    /// A number that changes whenever anything moves: whoever sees it twice the same has seen an idle connection.
    pub(crate) fn motion(&self) -> u64 {
        let moved = |side: Side| self.read(side).wrapping_add(self.written(side));
        let bytes = moved(Side::Client).wrapping_add(moved(Side::Backend));
        // Five marks: the two parts do not overlap before 2^59 bytes.
        bytes.wrapping_mul(32).wrapping_add(u64::from(self.marks.load(SeqCst)))
    }
}

/// There is one writer, so a load and a store do for a locked addition.
fn add(figure: &AtomicU64, bytes: usize) {
    figure.store(figure.load(Relaxed).wrapping_add(bytes as u64), Relaxed);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::memory::owing::Owing;
    use crate::testing::pair;

    #[test]
    fn anything_that_moves_shows() {
        let gauges = Gauges::default();
        let mut seen = vec![gauges.motion()];
        let mut check = |what: &str| {
            let motion = gauges.motion();
            assert!(!seen.contains(&motion), "{what}");
            seen.push(motion);
        };
        gauges.connected();
        check("connected");
        for side in [Side::Client, Side::Backend] {
            gauges.add_read(side, 1);
            check("read");
            gauges.add_written(side, 1);
            check("written");
            gauges.saw_fin(side);
            check("fin");
        }
        gauges.broke();
        check("broke");
        assert_eq!((gauges.read(Side::Client), gauges.written(Side::Backend)), (1, 1));
    }

    #[test]
    fn phases_and_who_ended_first() {
        let check = |steps: &[fn(&Gauges)], phase: Phase, first: Option<Side>| {
            let gauges = Gauges::default();
            steps.iter().for_each(|step| step(&gauges));
            assert_eq!((gauges.phase(), gauges.first_fin()), (phase, first));
        };
        let connected: fn(&Gauges) = Gauges::connected;
        let broke: fn(&Gauges) = Gauges::broke;
        let client: fn(&Gauges) = |gauges| gauges.saw_fin(Side::Client);
        let backend: fn(&Gauges) = |gauges| gauges.saw_fin(Side::Backend);
        check(&[], Phase::Connect, None);
        check(&[client], Phase::Connect, Some(Side::Client));
        check(&[connected], Phase::Data, None);
        check(&[connected, broke], Phase::HalfClosed, None);
        check(&[client, connected], Phase::HalfClosed, Some(Side::Client));
        check(&[connected, client, backend], Phase::HalfClosed, Some(Side::Client));
        check(&[connected, backend, client], Phase::HalfClosed, Some(Side::Backend));
    }

    #[test]
    fn what_is_pending_for_both_peers_is_added_up_while_their_sockets_live() {
        let gauges = Gauges::default();
        let owing = |side: Side, bytes: usize| {
            let socket: Arc<dyn Socket> = Arc::new(Owing(pair(1).0, bytes));
            gauges.attach(side, &socket);
            socket
        };
        assert_eq!(gauges.pending(), 0);
        let client = owing(Side::Client, 3);
        assert_eq!(gauges.pending(), 3);
        let backend = owing(Side::Backend, 4);
        assert_eq!(gauges.pending(), 7);
        drop(client);
        assert_eq!(gauges.pending(), 4);
        drop(backend);
        assert_eq!(gauges.pending(), 0);
    }
}
