//! One of several processes that `--workers` starts, and what it has from its supervisor.
//!
//! Its stdin is a socket. By that come the listening sockets (unix(7), SCM_RIGHTS); by that go its figures, a line of JSON
//! each; and when it ends, so has the supervisor.

use super::Failure;
use async_io::Async;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};
use serde_json::Value;
use std::io::{self, IoSlice, IoSliceMut, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use trunkline::Report;
use trunkline::units::show_error;

/// Listening sockets at most: the kernel passes on 253 at once (unix(7)).
pub(super) const SOCKETS: usize = 64;

/// What a worker is started with.
pub(super) struct Link {
    sockets: Vec<OwnedFd>,
    supervisor: Supervisor,
}

impl Link {
    /// Takes it from stdin.
    pub(super) fn take(worker: usize) -> Result<Link, Failure> {
        let failed = |error: io::Error| {
            let error = show_error(&error);
            Failure::Usage(format!(
                "--worker {worker} is for the processes that --workers starts ({error}); leave it out"
            ))
        };
        let stdin = io::stdin().as_fd().try_clone_to_owned().map_err(failed)?;
        let sockets = take(stdin.as_fd()).map_err(failed)?;
        let link = Async::new(UnixStream::from(stdin)).map_err(failed)?;
        Ok(Link { sockets, supervisor: Supervisor(link) })
    }

    pub(super) fn split(self) -> (Vec<OwnedFd>, Supervisor) {
        (self.sockets, self.supervisor)
    }
}

/// The way back.
pub(super) struct Supervisor(Async<UnixStream>);

impl Supervisor {
    /// Tells what this process does and has done.
    pub(super) fn tell(&self, report: &Report) {
        let mut line = write(report).to_string();
        line.push('\n');
        // Full: it is far behind, and gets the next one. Gone: that is seen elsewhere.
        let _ = self.0.get_ref().write_all(line.as_bytes());
    }

    /// Waits until it has ended. It never sends anything.
    pub(super) async fn gone(&self) {
        // If that cannot be found out, it is taken for an end.
        let _ = self.0.readable().await;
    }
}

/// Hands sockets over.
pub(super) fn give(link: BorrowedFd<'_>, sockets: &[OwnedFd]) -> io::Result<()> {
    let sockets: Vec<BorrowedFd<'_>> = sockets.iter().map(AsFd::as_fd).collect();
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(SOCKETS))];
    let mut rights = SendAncillaryBuffer::new(&mut space);
    if sockets.len() > SOCKETS || !rights.push(SendAncillaryMessage::ScmRights(&sockets)) {
        return Err(io::Error::other("too many sockets"));
    }
    sendmsg(link, &[IoSlice::new(b"!")], &mut rights, SendFlags::NOSIGNAL)?;
    Ok(())
}

/// Takes what was handed over.
fn take(link: BorrowedFd<'_>) -> io::Result<Vec<OwnedFd>> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(SOCKETS))];
    let mut rights = RecvAncillaryBuffer::new(&mut space);
    let mut byte = [0];
    recvmsg(link, &mut [IoSliceMut::new(&mut byte)], &mut rights, RecvFlags::CMSG_CLOEXEC)?;
    let mut sockets = Vec::new();
    for message in rights.drain() {
        if let RecvAncillaryMessage::ScmRights(passed) = message {
            sockets.extend(passed);
        }
    }
    if sockets.is_empty() {
        Err(io::Error::other("nobody hands over a socket"))
    } else {
        Ok(sockets)
    }
}

const COUNTS: usize = 11;

fn counts(report: &mut Report) -> ([&mut u64; 8], [&mut usize; 3]) {
    let Report {
        open,
        accepted,
        clean,
        aborted,
        refused,
        from_client,
        to_backend,
        from_backend,
        to_client,
        backend_writer_high_water,
        client_writer_high_water,
        ..
    } = report;
    (
        [accepted, clean, aborted, refused, from_client, to_backend, from_backend, to_client],
        [open, backend_writer_high_water, client_writer_high_water],
    )
}

fn write(report: &Report) -> Value {
    let mut report = report.clone();
    let (totals, marks) = counts(&mut report);
    let marks = marks.into_iter().map(|mark| *mark as u64);
    totals.into_iter().map(|total| *total).chain(marks).collect()
}

/// Reads what [`Supervisor::tell`] has sent; `None` if that is not what it is.
pub(super) fn read(line: &str) -> Option<Report> {
    let numbers: Vec<u64> = serde_json::from_str(line).ok()?;
    if numbers.len() != COUNTS {
        return None;
    }
    let mut report = Report::default();
    let (totals, marks) = counts(&mut report);
    let mut numbers = numbers.into_iter();
    for (total, number) in totals.into_iter().zip(&mut numbers) {
        *total = number;
    }
    for (mark, number) in marks.into_iter().zip(numbers) {
        *mark = usize::try_from(number).ok()?;
    }
    Some(report)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{TcpListener, TcpStream};

    #[test]
    fn a_report_is_read_as_it_was_written() {
        let mut report = Report::default();
        let (totals, marks) = counts(&mut report);
        for (number, total) in (1..).zip(totals) {
            *total = number;
        }
        for (number, mark) in (9..).zip(marks) {
            *mark = number;
        }
        assert_eq!((report.accepted, report.client_writer_high_water), (1, COUNTS));
        assert_eq!(read(&write(&report).to_string()), Some(report));
        for wrong in
            ["", "{}", "[1,2]", "[1,2,3,4,5,6,7,8,9,10,11,12]", "[-1,2,3,4,5,6,7,8,9,10,11]"]
        {
            assert_eq!(read(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_socket_that_is_handed_over_still_listens() {
        let (ours, theirs) = UnixStream::pair().expect("there are sockets");
        let listener = TcpListener::bind("127.0.0.1:0").expect("there is a free port");
        let address = listener.local_addr().expect("it is bound");
        give(ours.as_fd(), &[listener.into()]).expect("it is taken");
        let mut sockets = take(theirs.as_fd()).expect("it was given");
        let listener = TcpListener::from(sockets.remove(0));
        let _client = TcpStream::connect(address).expect("somebody listens");
        listener.accept().expect("a client waits");
        drop(ours);
        assert!(take(theirs.as_fd()).is_err());
    }
}
