//! Whatever comes: no panic, the same frames however it is cut, and what is passed on is read by the next as it was here.

use super::*;
use crate::framing::Action;
use proptest::prelude::*;
use proptest::sample::Index;

/// Pieces that a lucky attacker would put together.
const SCRAPS: [&str; 26] = [
    "\r\n",
    "\r",
    "\n",
    "\0",
    " ",
    "\t",
    ":",
    ",",
    ";",
    "0",
    "5",
    "ffffffffffffffff",
    "GET / HTTP/1.1\r\n",
    "HTTP/1.1 200 OK\r\n",
    "HTTP/1.0 ",
    "HTTP/1.1 100 Continue\r\n\r\n",
    "Host: a\r\n",
    "Content-Length: 5\r\n",
    "Transfer-Encoding: chunked\r\n",
    "Connection: close\r\n",
    "Connection: Upgrade\r\nUpgrade: x\r\n",
    "\r\n\r\n",
    "0\r\n\r\n",
    "\"",
    "\\",
    "\u{e4}",
];

/// What becomes of a byte string: a place, what is cut out there, and what is put in.
fn mutations() -> impl Strategy<Value = Vec<(Index, usize, Vec<u8>)>> {
    let scrap = (0..SCRAPS.len()).prop_map(|at| SCRAPS[at].as_bytes().to_vec());
    let put = prop_oneof![scrap, prop::collection::vec(any::<u8>(), 0..3)];
    prop::collection::vec((any::<Index>(), 0..4_usize, put), 0..4)
}

fn mutated(bytes: &[u8], mutations: &[(Index, usize, Vec<u8>)]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    for (place, cut, put) in mutations {
        // Mostly in the first head, whatever its body's length.
        let start = place.index(bytes.len().clamp(1, 400)).min(bytes.len());
        let end = (start + cut).min(bytes.len());
        bytes.splice(start..end, put.iter().copied());
    }
    bytes
}

/// Reads it at once and in these lengths, which must be the same; and gives what it was.
fn both<T: PartialEq + std::fmt::Debug>(
    bytes: &[u8],
    lengths: &[usize],
    read: impl Fn(&[u8], &[usize]) -> Read<T>,
) -> Read<T> {
    let whole = read(bytes, &[]);
    splits::same(&whole, &read(bytes, lengths), "in these lengths");
    whole
}

fn check_requests(bytes: &[u8], lengths: &[usize]) -> Result<(), TestCaseError> {
    let http = Http::default();
    let read = both(bytes, lengths, |bytes, lengths| splits::requests(&http, bytes, lengths));
    // The backend reads the same requests in what it gets as were read here.
    let forwarded = |read: Read<Request>| {
        let frames = read.frames.into_iter();
        frames
            .filter(|frame| frame.1.action == Action::Forward)
            .map(|frame| frame.0)
            .collect::<Vec<_>>()
    };
    let frames = forwarded(read);
    let again = splits::requests(&http, &frames.concat(), &[]);
    prop_assert_eq!(&again.error, &None);
    prop_assert_eq!(again.rest.len(), 0);
    prop_assert_eq!(forwarded(again), frames);
    Ok(())
}

fn check_replies(bytes: &[u8], lengths: &[usize], due: &[u32]) -> Result<(), TestCaseError> {
    let http = Http::default();
    let due: Vec<_> = due.iter().copied().map(Shape).collect();
    let read = both(bytes, lengths, |bytes, lengths| splits::replies(&http, bytes, lengths, &due));
    // So does the client, but for what is no reply any more: the bytes of a tunnel.
    let frames: Vec<_> = read.frames.iter().map(|frame| frame.0.clone()).collect();
    let again = splits::replies(&http, &frames.concat(), &[], &due);
    prop_assert_eq!(&again.error, &None);
    let again: Vec<_> = again.frames.into_iter().map(|frame| frame.0).collect();
    prop_assert_eq!(again, frames);
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn any_bytes(
        bytes in prop::collection::vec(any::<u8>(), 0..300),
        lengths in prop::collection::vec(1..40_usize, 0..20),
        shape in 0..64_u32,
    ) {
        check_requests(&bytes, &lengths)?;
        check_replies(&bytes, &lengths, &[shape, shape])?;
    }

    #[test]
    fn any_scraps(
        scraps in prop::collection::vec(0..SCRAPS.len(), 0..20),
        lengths in prop::collection::vec(1..20_usize, 0..30),
        shape in 0..64_u32,
        first in any::<bool>(),
    ) {
        let bytes: String = scraps.into_iter().map(|at| SCRAPS[at]).collect();
        let request = if first { "GET / HTTP/1.1\r\nHost: a\r\n" } else { "" };
        check_requests(format!("{request}{bytes}").as_bytes(), &lengths)?;
        let reply = if first { "HTTP/1.1 200 OK\r\n" } else { "" };
        check_replies(format!("{reply}{bytes}").as_bytes(), &lengths, &[shape, 0, shape])?;
    }

    #[test]
    fn mutated_requests(
        which in any::<Index>(),
        mutations in mutations(),
        lengths in prop::collection::vec(1..3000_usize, 0..20),
    ) {
        let clients = clients();
        check_requests(&mutated(which.get::<Vec<u8>>(&clients), &mutations), &lengths)?;
    }

    #[test]
    fn mutated_replies(
        which in any::<Index>(),
        mutations in mutations(),
        lengths in prop::collection::vec(1..3000_usize, 0..20),
        shape in prop::option::of(0..64_u32),
    ) {
        let trunks = trunks();
        let (bytes, mut due) = which.get(&trunks).clone();
        if let (Some(first), Some(shape)) = (due.first_mut(), shape) {
            *first = shape;
        }
        check_replies(&mutated(&bytes, &mutations), &lengths, &due)?;
    }

    /// Whoever is asked again after it has refused, or is given less than before, may say what it likes, but says it.
    #[test]
    fn nobody_panics_who_is_used_wrongly(
        which in any::<Index>(),
        mutations in mutations(),
        places in prop::collection::vec((any::<Index>(), any::<Index>()), 1..20),
    ) {
        let http = Http::default();
        let (clients, trunks) = (clients(), trunks());
        let (mut requests, mut replies) = (http.requests(), http.replies());
        let bytes = mutated(which.get::<Vec<u8>>(&clients), &mutations);
        let (reply, due) = which.get(&trunks);
        let reply = mutated(reply, &mutations);
        for (from, to) in places {
            let cut = |bytes: &[u8]| {
                let (from, to) = (from.index(bytes.len() + 1), to.index(bytes.len() + 1));
                bytes[from.min(to)..from.max(to)].to_vec()
            };
            let _ = requests.next(&cut(&bytes));
            let _ = replies.next(&cut(&reply), due.first().copied().map(Shape));
        }
    }
}
