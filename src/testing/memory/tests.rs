use super::*;
use crate::socket::{recv, send_all};
use futures_lite::future::{block_on, poll_once, zip};
use proptest::prelude::*;
use std::thread;

async fn send(socket: &dyn Socket, bytes: &[u8]) -> io::Result<()> {
    let mut chunks = VecDeque::from([Chunk::from(bytes.to_vec())]);
    send_all(socket, &mut chunks, |_| {}).await
}

/// The next bytes, `None` at the end, or the kind of the error.
async fn next(socket: &dyn Socket) -> Result<Option<Vec<u8>>, ErrorKind> {
    let received = recv(socket).await.map_err(|error| error.kind())?;
    Ok(received.map(|chunk| chunk.to_vec()))
}

const RESET: Result<Option<Vec<u8>>, ErrorKind> = Err(ErrorKind::ConnectionReset);

#[test]
fn a_full_direction_holds_its_sender_until_the_other_end_reads() {
    block_on(async {
        let (one, other) = pair(3);
        let mut sending = Box::pin(send(&*one, b"abcde"));
        assert!(poll_once(&mut sending).await.is_none());
        assert_eq!(next(&*other).await, Ok(Some(b"abc".to_vec())));
        sending.await.expect("there is room");
        assert_eq!(next(&*other).await, Ok(Some(b"de".to_vec())));
    });
}

#[test]
fn an_end_that_ended_its_sending_still_receives() {
    block_on(async {
        let (one, other) = pair(8);
        send(&*one, b"bye").await.expect("open");
        one.shutdown_write().expect("open");
        assert_eq!(next(&*other).await, Ok(Some(b"bye".to_vec())));
        assert_eq!(next(&*other).await, Ok(None));
        send(&*other, b"see you").await.expect("open in this direction");
        assert_eq!(next(&*one).await, Ok(Some(b"see you".to_vec())));
        assert!(send(&*one, b"more").await.is_err());
    });
}

#[test]
fn an_armed_end_that_is_dropped_resets_behind_what_it_sent() {
    block_on(async {
        let (one, other) = pair(8);
        send(&*one, b"last").await.expect("open");
        drop(one);
        assert_eq!(next(&*other).await, Ok(Some(b"last".to_vec())));
        assert_eq!(next(&*other).await, RESET);
        assert!(send(&*other, b"x").await.is_err());
        assert!(other.shutdown_write().is_err());
    });
}

#[test]
fn a_disarmed_end_that_is_dropped_ends_cleanly() {
    block_on(async {
        let (one, other) = pair(8);
        send(&*one, b"last").await.expect("open");
        one.disarm();
        drop(one);
        assert_eq!(next(&*other).await, Ok(Some(b"last".to_vec())));
        assert_eq!(next(&*other).await, Ok(None));
        assert_eq!(next(&*other).await, Ok(None));
        assert!(other.shutdown_write().is_ok());
    });
}

#[test]
fn closing_with_bytes_unread_is_a_reset_though_disarmed() {
    block_on(async {
        let (one, other) = pair(8);
        send(&*other, b"unread").await.expect("open");
        one.disarm();
        drop(one);
        assert_eq!(next(&*other).await, RESET);
    });
}

#[test]
fn after_a_failed_send_the_end_never_looks_clean() {
    block_on(async {
        let (one, other) = pair(8);
        send(&*one, b"last").await.expect("open");
        one.disarm();
        drop(one);
        assert!(send(&*other, b"x").await.is_err());
        assert_eq!(next(&*other).await, Ok(Some(b"last".to_vec())), "what had arrived comes first");
        assert_eq!(next(&*other).await, RESET);
    });
}

#[test]
fn whoever_waits_is_woken_by_the_other_end_on_another_thread() {
    const BYTES: usize = 20_000;
    let (one, other) = pair(7);
    let (back, forth) = (Arc::clone(&one), Arc::clone(&other));
    let sender = thread::spawn(move || {
        block_on(async {
            for number in 0..BYTES {
                send(&*forth, &[number as u8]).await.expect("open");
                // The answer to every byte: both ends wait again and again.
                assert_eq!(next(&*forth).await, Ok(Some(vec![number as u8])));
            }
        });
    });
    block_on(async {
        for _ in 0..BYTES {
            let bytes = next(&*back).await.expect("open").expect("open");
            send(&*back, &bytes).await.expect("open");
        }
    });
    sender.join().expect("no panic");
    let waiting = thread::spawn(move || block_on(next(&*other)));
    drop((one, back));
    assert_eq!(waiting.join().expect("no panic"), RESET);
}

proptest! {
    #[test]
    fn what_is_sent_arrives_in_order_and_never_exceeds_the_capacity(
        capacity in 1usize..40,
        reads in 1usize..40,
        parts in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 1..60), 0..20),
    ) {
        let (one, other) = pair_reading(capacity, [1, reads]);
        let mut sent = 0;
        let got = block_on(async {
            let mut chunks: VecDeque<Chunk> = parts.iter().cloned().map(Chunk::from).collect();
            let sending = async {
                send_all(&*one, &mut chunks, |count| sent = usize::max(sent, count)).await.expect("open");
                one.shutdown_write().expect("open");
            };
            let receiving = async {
                let mut got = Vec::new();
                while let Ok(Some(bytes)) = next(&*other).await {
                    assert!(bytes.len() <= reads.min(capacity));
                    got.extend(bytes);
                }
                got
            };
            zip(sending, receiving).await.1
        });
        prop_assert!(sent <= capacity);
        prop_assert_eq!(got, parts.concat());
    }
}
