//! How a trunk that was pinned is given back.

use super::{Message, Outcome, Owed, Piece, Tab};
use crate::credit::Credits;
use crate::framing::{ResetQuery, Shape};
use crate::mailbox::mailbox;
use crate::pool::{Lease, Pool};
use crate::runtime::timeout;
use crate::trunk::PATIENCE;
use crate::tunnel;

/// Asks a trunk to forget what its client left there, and gives it back when it says that it has; if it says anything
/// else, or nothing, it is closed.
pub(crate) async fn reset(lease: Lease, pool: Pool, query: ResetQuery) {
    let asked = timeout(&**pool.runtime(), PATIENCE, ask(&pool, &lease, &query)).await;
    match asked {
        Some(true) => pool.give_back(lease).await,
        Some(false) => lease.close().await,
        // Dropped, it is reset.
        None => log::debug!(actor = "reset"; "a backend did not say in time that it has forgotten"),
    }
}

async fn ask(pool: &Pool, lease: &Lease, query: &ResetQuery) -> bool {
    // More than the pieces in which so short a reply comes.
    let pieces = query.reply.len() + 1;
    let (address, mut replies) = mailbox(pieces);
    let tab = Tab::new(address, Credits::new(pieces), pool.buffers().clone(), usize::MAX);
    let owed = Owed::new(&tab, Shape::default(), Some(1), false, None, None);
    let piece = Piece { chunk: query.request.clone().into(), owed: Some(owed), rest: None };
    if lease.send(Message::Piece(piece)).await.is_err() {
        return false;
    }
    while tab.owes() {
        tab.heard().await;
    }
    let mut came = Vec::new();
    while let Some(tunnel::Message::Chunk(chunk)) = replies.try_recv() {
        came.extend_from_slice(&chunk);
    }
    let doubtful = tab.was_told(Outcome::Doubtful) || tab.was_told(Outcome::Retired);
    came == query.reply && !doubtful
}
