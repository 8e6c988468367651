//! What the backend_writer of a trunk does.

use super::{Message, Owed, Piece};
use crate::actor::Budget;
use crate::mailbox::{Address, Mailbox};
use crate::runtime::linger;
use crate::socket::{Socket, finish, send_all};
use std::collections::VecDeque;
use std::sync::Arc;

/// How the backend_writer of a trunk ended.
pub(crate) enum Written {
    /// It has written the end, as it was told.
    Fin { owed: bool },
    /// Nobody has its address any more, or nobody reads the replies.
    Deserted,
    /// The socket failed.
    Failed,
}

/// Pieces that go out in one write at most. Fewer than may be owed: what is owed is posted before its request is written,
/// and would wait for ever for replies to requests that wait for it.
pub(crate) const BATCH: usize = 128;

/// Writes requests to a trunk, which clients share or not, until it is to end, nobody has its address any more, or the
/// socket fails.
pub(crate) async fn write_requests(
    name: &'static str,
    trunk: u64,
    mut mailbox: Mailbox<Message>,
    expected: Address<Owed>,
    socket: Arc<dyn Socket>,
    shared: bool,
) -> Written {
    let mut budget = Budget::default();
    let most = mailbox.capacity().min(BATCH);
    let (mut chunks, mut rests) = (VecDeque::new(), Vec::new());
    while let Some(first) = mailbox.recv().await {
        if shared {
            // Others may be about to ask too: one write for many is what makes this fast.
            linger(|| mailbox.len()).await;
        }
        let mut next = Some(first);
        // What has gathered meanwhile goes out in the same system call.
        while let Some(Message::Piece(Piece { chunk, owed, rest })) = next {
            if let Some(mut owed) = owed {
                owed.is_written();
                if let Err(mut owed) = expected.send(owed).await {
                    owed.is_not_written();
                    return Written::Deserted;
                }
            }
            chunks.push_back(chunk);
            rests.extend(rest);
            next = if chunks.len() < most { mailbox.try_recv() } else { None };
        }
        let (fin, owed) = match next {
            Some(Message::Fin { owed }) => (true, owed),
            _ => (false, false),
        };
        let pieces = chunks.len();
        let mut sent = send_all(&*socket, &mut chunks, |_| {}).await;
        if fin && sent.is_ok() {
            sent = finish(&*socket).await;
        }
        rests.clear();
        log::trace!(actor = name, trunk; "wrote {pieces} pieces to trunk {trunk}");
        if let Err(error) = sent {
            log::debug!(actor = name, trunk; "writing to trunk {trunk} failed: {error}");
            return Written::Failed;
        }
        if fin {
            return Written::Fin { owed };
        }
        budget.spend().await;
    }
    Written::Deserted
}
