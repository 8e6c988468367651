//! Every wait of a test ends: by what it waits for, or by a panic that says what that was.

use crate::runtime::{AsyncStd, timeout};
use std::fmt::Display;
use std::panic::Location;
use std::time::Duration;

/// How long a wait lasts unless a test says otherwise. It is no measure of speed: only a test that fails takes so long.
pub const DEADLINE: Duration = Duration::from_secs(10);

/// Waits for at most `patience`, or for ever; `None` when that was not enough.
pub(crate) async fn within<T>(
    patience: Option<Duration>,
    future: impl Future<Output = T>,
) -> Option<T> {
    match patience {
        Some(time) => timeout(&AsyncStd, time, future).await,
        None => Some(future.await),
    }
}

/// The panic of a wait that was not ready in time: `who` waited for `what` at `place`, and this is how far it was.
pub(crate) fn late(who: &str, what: impl Display, place: &Location<'_>, state: impl Display) -> ! {
    panic!("{who} waited too long for {what}, at {place}; {state}")
}

/// Bytes for a person: how many, and the last of them.
pub(crate) fn show(bytes: &[u8]) -> String {
    const SHOWN: usize = 64;
    let tail = &bytes[bytes.len().saturating_sub(SHOWN)..];
    let before = if tail.len() < bytes.len() { "... " } else { "" };
    format!("{} bytes: {before}\"{}\"", bytes.len(), tail.escape_ascii())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{FakeBackend, Harness, Peer, block_on, pair};
    use std::panic::{AssertUnwindSafe, catch_unwind};

    /// What a wait says that is never ready.
    fn panic_of<T>(wait: impl Future<Output = T>) -> String {
        let panic = catch_unwind(AssertUnwindSafe(|| block_on(wait))).err();
        let panic = panic.expect("the wait gives up");
        panic.downcast_ref::<String>().cloned().expect("it says why")
    }

    #[test]
    fn a_wait_that_gives_up_names_who_waited_where_for_what_and_how_far_it_was() {
        let check = |said: String, parts: &[&str]| {
            for part in parts.iter().chain(&["the client", "src/testing/deadline.rs:"]) {
                assert!(said.contains(part), "{part:?} is not in {said:?}");
            }
        };
        let (ours, theirs) = pair(8);
        let mut client = Peer::new("the client", ours).patience(Some(Duration::from_millis(1)));
        let mut other = Peer::new("the other", theirs);
        block_on(other.send(b"abc"));
        check(panic_of(client.recv_exact(5)), &["for 5 bytes", "3 bytes: \"abc\""]);
        check(panic_of(client.recv()), &["for any bytes", "none came"]);
        check(panic_of(client.recv_to_end()), &["for the end of the stream", "0 bytes"]);
        check(panic_of(client.send(b"0123456789")), &["room to send 10 bytes", "2 of these"]);
        other.reset();
        check(panic_of(client.recv_exact(5)), &["wanted 5 bytes", "ConnectionReset"]);
        check(panic_of(client.recv()), &["could not receive", "reset"]);
        check(panic_of(client.send(b"x")), &["could not send 1 bytes: \"x\""]);
    }

    #[test]
    fn what_was_more_than_was_asked_for_is_there_for_the_next() {
        let (ours, theirs) = pair(8);
        let (mut one, mut other) = (Peer::new("one", ours), Peer::new("other", theirs));
        block_on(async {
            one.send(b"abcdef").await;
            one.close();
            assert_eq!(other.recv_exact(2).await, b"ab");
            assert_eq!(other.recv_exact(0).await, b"");
            assert_eq!(other.recv_exact(3).await, b"cde");
            assert_eq!(other.recv_to_end().await.bytes, b"f");
        });
    }

    #[test]
    fn a_fake_backend_that_stops_closes_its_port_and_resets_its_connections() {
        block_on(async {
            let backend = FakeBackend::by_hand().listen();
            let address = backend.address();
            let harness =
                Harness::builder().with(|config| config.backends = vec![address.into()]).start();
            let mut client = harness.client().await;
            drop(backend.accept().await);
            assert!(client.recv_to_end().await.ending.is_reset());
            backend.stop().await;
            assert!(std::net::TcpStream::connect(address).is_err());
        });
    }
}
