//! Peers that speak lines: one request, one reply.

use super::talk::Talk;
use super::{DAWDLE, Ledger, all_behave, leave, meet};
use crate::runtime::Runtime;
use crate::socket::Socket;
use crate::testing::sim::dialect::is_terse;
use crate::testing::sim::world::World;
use std::sync::Arc;

fn request(client: usize, number: usize) -> String {
    let longest = if is_terse(client) { 9 } else { 300 };
    let filler = "x".repeat((client * 7 + number * 13) % longest);
    format!("client {client} request {number} {filler}\n")
}

fn reply(client: usize, number: usize) -> String {
    let longest = if is_terse(client) { 9 } else { 500 };
    let filler = "y".repeat((client * 11 + number * 17) % longest);
    format!("reply for client {client} to request {number} {filler}\n")
}

pub(super) async fn client(world: &World, ledger: &Ledger, me: usize) {
    let Some(socket) = meet(world, me).await else { return };
    let requests = world.roll(12);
    let speech: String = (0..requests).map(|number| request(me, number)).collect();
    let mut talk = Talk::new(speech.into_bytes());
    let (wild, waits) = (world.chance(20), world.chance(50));
    let (mut replies, mut fin) = (0, false);
    loop {
        if wild && world.chance(5) {
            return leave(world, socket, "client", world.chance(50));
        }
        let awaits = waits && replies < talk.lines_sent();
        let speaks = !talk.done() && !awaits && world.chance(60);
        if speaks {
            talk.speak(world, &*socket, usize::MAX).await;
        } else if talk.done() && !fin && (!waits || replies == requests) {
            fin = true;
            talk.broken |= socket.shutdown_write().is_err();
        } else if let Some(saw_fin) = talk.listen(world, &*socket).await {
            // A client that has nothing on its way is let go when the proxy stops; its next request may cross that.
            let let_go = ledger.pages().stopping && replies <= talk.lines_sent();
            if saw_fin && !(talk.heard.is_empty() && (let_go || (fin && replies == requests))) {
                ledger.breaks(format!(
                    "client {me} saw a clean end after {replies} replies to {requests} requests"
                ));
            }
            world.count(if saw_fin { "client served" } else { "client cut off" });
            break;
        }
        for line in talk.lines() {
            if line != reply(me, replies) {
                ledger.breaks(format!(
                    "client {me} got {line:?} instead of the reply to its request {replies}"
                ));
            }
            replies += 1;
        }
    }
    socket.disarm();
}

pub(super) async fn backend(world: &World, ledger: &Ledger, socket: Arc<dyn Socket>) {
    let mut talk = Talk::new(Vec::new());
    // In every third run all are well-behaved, so that whatever is lost was lost by the proxy.
    let wild = world.chance(40) && !all_behave(world);
    let (slow, hasty) = (world.chance(30), world.chance(30));
    let mut early = None;
    loop {
        if !talk.done() {
            if wild && world.chance(3) {
                // In the middle of a reply.
                return leave(world, socket, "backend", world.chance(50));
            }
            talk.speak(world, &*socket, usize::MAX).await;
            if talk.broken {
                return;
            }
            continue;
        }
        if wild && world.chance(3) {
            return leave(world, socket, "backend", world.chance(50));
        }
        if slow && world.chance(4) {
            let pause = world.while_up_to(DAWDLE);
            world.sleep(pause).await;
        }
        if let Some(clean) = talk.listen(world, &*socket).await {
            if clean && !talk.heard.is_empty() {
                ledger.breaks("a backend saw a clean end in the middle of a request".into());
            }
            break;
        }
        for line in talk.lines() {
            let Some((client, number)) = named(&line) else {
                ledger.breaks(format!("a backend was sent {line:?}, which is no request"));
                continue;
            };
            if line != request(client, number) {
                ledger.breaks(format!("a backend was sent {line:?}, which nobody sent"));
            }
            if early.take() != Some((client, number)) {
                ledger.carries_out(client, number, 1);
                talk.speech.extend_from_slice(reply(client, number).as_bytes());
            }
        }
        // Some answer, by an error above all, before they have the whole request.
        if hasty
            && early.is_none()
            && let Some((client, number)) = named(&String::from_utf8_lossy(&talk.heard))
        {
            world.count("fault: backend answers half a request");
            early = Some((client, number));
            ledger.carries_out(client, number, 1);
            talk.speech.extend_from_slice(reply(client, number).as_bytes());
        }
    }
    socket.disarm();
}

/// Which request a line is, once it has said so.
fn named(line: &str) -> Option<(usize, usize)> {
    let mut words = line.split(' ');
    let (_, client, _, number) = (words.next()?, words.next()?, words.next()?, words.next()?);
    // Without the word behind it, the number may go on.
    words.next()?;
    Some((client.parse().ok()?, number.parse().ok()?))
}
