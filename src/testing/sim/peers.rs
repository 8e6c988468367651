//! Clients and backends of a simulated run: they speak, listen, dawdle, and leave in every way there is.

use super::book::{Book, Saw, byte};
use super::net;
use super::world::World;
use crate::runtime::{Either, Runtime, race};
use crate::socket::{Chunk, Socket, recv, send_all};
use crate::{ConnId, Endpoint};
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

/// Connects after a while, and does what comes to its mind. If the proxy runs for long enough to serve all, it must be
/// served.
pub(super) async fn client(
    world: World,
    book: Book,
    number: usize,
    within: Duration,
    serves_all: bool,
) {
    let delay = world.while_up_to(within);
    world.sleep(delay).await;
    let endpoint = Endpoint::Name { host: format!("client-{number}"), port: 1 };
    let me = book.add_client(&endpoint);
    let name = endpoint.to_string();
    match net::connect(&world, endpoint) {
        Ok(socket) => {
            live(&world, &book, me, socket, "client").await;
            let waited = !book.is_served(me) && !book.left(me);
            if serves_all && waited && !world.lobby(|lobby| lobby.lost.contains(&name)) {
                book.breaks(format!(
                    "client {me} waited in the backlog, and was not served when a slot was free"
                ));
            }
        }
        Err(_) => {
            world.count("client finds nobody");
            book.update(me, |record| record.left = true);
        }
    }
}

/// Serves a socket in the same manner. It is called where the proxy dials, so `conn` is known.
pub(super) fn backend(world: &World, book: &Book, conn: Option<ConnId>, socket: Arc<dyn Socket>) {
    let me = book.add_backend(conn);
    let (inner, book) = (world.clone(), book.clone());
    world.start("backend", async move { live(&inner, &book, me, socket, "backend").await });
}

/// The longest that a peer dawdles. Below every timeout, so that only who wants to is timed out.
const DAWDLE: Duration = Duration::from_secs(2);

/// Longer than every deadline together, and than the proxy runs.
const SILENCE: Duration = Duration::from_secs(30 * 3600);

async fn live(world: &World, book: &Book, me: usize, socket: Arc<dyn Socket>, who: &str) {
    let speech = if world.chance(15) { 0 } else { world.roll(4000) as u64 };
    let wild = world.chance(30);
    let lazy = world.chance(20);
    // What has arrived and is not read looks, from the proxy, as if nothing moved.
    book.update(me, |record| record.silent = lazy);
    // Ends its sending only when it has heard all. Were both so, they would wait for each other.
    let polite = who == world.lobby(|lobby| lobby.polite) && world.chance(40);
    let (mut done, mut mute, mut heard) = (false, false, false);
    while !(done && heard) {
        if wild && world.chance(3) {
            book.update(me, |record| record.left = true);
            return leave(world, book, me, socket, who).await;
        }
        if lazy && world.chance(20) {
            let pause = world.while_up_to(DAWDLE);
            world.sleep(pause).await;
        }
        let speak = !done && (heard || world.chance(50));
        if speak {
            let sent = book.sent(me);
            if sent < speech && !mute {
                mute = !say(world, book, me, &*socket, speech).await;
            } else if polite && !heard && !mute {
                heard = listen(world, book, me, &*socket).await;
            } else if mute {
                // It cannot speak any more, but may still be told something.
                done = true;
            } else {
                done = true;
                let fin = socket.shutdown_write().is_ok();
                book.update(me, |record| record.fin = fin);
                world.count(&format!(
                    "fault: {who} ends its sending{}",
                    if heard { "" } else { " first" }
                ));
            }
        } else if !heard {
            heard = listen(world, book, me, &*socket).await;
        }
    }
    socket.disarm();
}

/// Sends a part of the speech; false if the socket takes no more, for ever.
async fn say(world: &World, book: &Book, me: usize, socket: &dyn Socket, speech: u64) -> bool {
    let from = book.sent(me);
    let most = (speech - from).min(world.roll(600) as u64 + 1);
    let bytes: Vec<u8> = (from..from + most).map(|place| byte(me, place)).collect();
    let mut chunks = VecDeque::from([Chunk::from(bytes)]);
    let taken = |count: usize| book.update(me, |record| record.sent += count as u64);
    let patience = world.while_up_to(DAWDLE);
    // What was not taken in time is made again from where it stood.
    match race(send_all(socket, &mut chunks, taken), world.sleep(patience)).await {
        Either::A(Err(_)) => {
            world.count("a peer's send fails");
            false
        }
        _ => true,
    }
}

/// Receives a part; true at the end.
async fn listen(world: &World, book: &Book, me: usize, socket: &dyn Socket) -> bool {
    let patience = world.while_up_to(DAWDLE);
    let saw = match race(recv(socket), world.sleep(patience)).await {
        Either::B(()) => return false,
        Either::A(Ok(Some(chunk))) => {
            book.received(me, &chunk);
            return false;
        }
        Either::A(Ok(None)) => Saw::Fin,
        Either::A(Err(_)) => Saw::Reset,
    };
    book.update(me, |record| record.saw = Some(saw));
    true
}

/// Leaves in the middle of it.
async fn leave(world: &World, book: &Book, me: usize, socket: Arc<dyn Socket>, who: &str) {
    match world.roll(3) {
        0 => world.count(&format!("fault: {who} resets")),
        1 => {
            world.count(&format!("fault: {who} closes"));
            // Unless bytes lie unread, which makes it a reset, closing is an end of its sending too.
            book.update(me, |record| record.fin = true);
            socket.disarm();
        }
        _ => {
            world.count(&format!("fault: {who} falls silent"));
            book.update(me, |record| record.silent = true);
            world.sleep(SILENCE).await;
            // Its deadline has passed long since: what is left to read ends.
            loop {
                match race(recv(&*socket), world.sleep(DAWDLE * 60)).await {
                    Either::A(Ok(Some(chunk))) => book.received(me, &chunk),
                    Either::A(_) => return,
                    Either::B(()) if !book.is_served(me) => return,
                    Either::B(()) => {
                        let promise = "stood still, and its connection was not ended";
                        return book.breaks(format!("peer {me} {promise}"));
                    }
                }
            }
        }
    }
}
