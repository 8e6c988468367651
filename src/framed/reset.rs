//! How a trunk that was pinned is given back.

use super::{Message, Owed, Piece, Tab};
use crate::credit::Credits;
use crate::framing::{ResetQuery, Shape};
use crate::mailbox::mailbox;
use crate::pool::{Lease, Pool};
use crate::tunnel;

/// Asks a trunk to forget what its client left there, and gives it back when it says that it has; if it says anything
/// else, it is closed.
pub(crate) async fn reset(lease: Lease, pool: Pool, query: ResetQuery) {
    let (address, mut replies) = mailbox(2);
    let (tab, _bell) = Tab::new(address, Credits::new(1), usize::MAX);
    let owed = Owed::new(&tab, Shape::default(), Some(1), false, None, None);
    drop(tab);
    let piece = Piece { chunk: query.request.into(), owed: Some(owed) };
    if lease.send(Message::Piece(piece)).await.is_err() {
        return;
    }
    let mut came = Vec::new();
    // The mailbox closes when nothing is owed any more.
    while let Some(tunnel::Message::Chunk(chunk)) = replies.recv().await {
        came.extend_from_slice(&chunk);
        if came.len() > query.reply.len() {
            break;
        }
    }
    if came == query.reply {
        pool.give_back(lease).await;
    } else {
        lease.close().await;
    }
}
