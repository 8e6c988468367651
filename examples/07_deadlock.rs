//! **New here**: a stall, and what mends it. The backend_reader of `06_trunk` waits for a client that
//! does not read, and nobody else gets a reply. The cure is credit: a request enters the trunk only
//! if its reply is sure to find room, so backend_reader never waits. A slow client stops itself.
//!
//! **Still wrong**: the backend may be lost, or away when it is dialled: `08_pool` sees to that.
//!
//! **Run**: `cargo run --example 07_deadlock`
#![allow(clippy::print_stdout, reason = "an example shows what it did")]

use async_channel::{Receiver, Sender, bounded};
use futures_lite::future::BoxedLocal;
use std::{error::Error, task::Context, task::Waker};

type Result = std::result::Result<(), Box<dyn Error>>;

/// Of mailboxes, and of wires, which are channels here: a socket does not tell when it is full.
const CAPACITY: usize = 2;

/// A place for one reply in the mailbox of a client_writer. It travels with the request and with the
/// reply. Dropped, at last or on the way, it is free again.
struct Credit(Sender<()>);

impl Drop for Credit {
    fn drop(&mut self) {
        // Never full, for it was taken from there. Closed: client_reader has ended.
        let _ = self.0.try_send(());
    }
}

type From = Receiver<String>;
type To = Sender<String>;
type Reply = (String, Option<Credit>);
type Expect = (Sender<Reply>, Option<Credit>);
type Request = (String, Expect);
/// The credits of a client that are free. None: there are no credits, as in `06_trunk`.
type Free = Option<(Sender<()>, Receiver<()>)>;

async fn client_reader(wire: From, to: Sender<Request>, me: Sender<Reply>, free: Free) -> Result {
    loop {
        let (line, mut credit) = (wire.recv().await?, None);
        if let Some((given_back, free)) = &free {
            // Here a client that does not read is held up: before the trunk, and not in it.
            free.recv().await?;
            credit = Some(Credit(given_back.clone()));
        }
        to.send((line, (me.clone(), credit))).await?;
    }
}

async fn backend_writer(mailbox: Receiver<Request>, to: Sender<Expect>, wire: To) -> Result {
    loop {
        let (line, expect) = mailbox.recv().await?;
        to.send(expect).await?;
        wire.send(line).await?;
    }
}

async fn backend(requests: From, replies: To) -> Result {
    loop {
        replies.send(requests.recv().await?.to_uppercase()).await?;
    }
}

async fn backend_reader(wire: From, mailbox: Receiver<Expect>) -> Result {
    loop {
        let (line, (to, credit)) = (wire.recv().await?, mailbox.try_recv()?);
        match credit {
            // One client makes all the others wait here.
            None => drop(to.send((line, None)).await),
            // Full: a credit too many was given, which is our fault. Closed: the client has left.
            credit => assert!(!to.try_send((line, credit)).is_err_and(|error| error.is_full())),
        }
    }
}

type Tasks = Vec<BoxedLocal<Result>>;

/// Each round in which anybody can move brings a message a step further, and all messages together
/// have fewer steps to go than this. Then each waits for another: with no clock and no socket, that
/// is for ever. So a stall is seen at once, and not guessed from how long it takes.
fn until_nothing_moves(tasks: &mut Tasks) {
    let mut context = Context::from_waker(Waker::noop());
    (0..1000).for_each(|_| tasks.retain_mut(|task| task.as_mut().poll(&mut context).is_pending()));
}

/// A client takes its replies out of the mailbox itself, as a client_writer would for it.
fn connect(tasks: &mut Tasks, trunk: &Sender<Request>, credit: bool) -> (To, Receiver<Reply>) {
    let ((ask, asked), (me, replies)) = (bounded(20), bounded(CAPACITY));
    let (give_back, free) = bounded(CAPACITY);
    (0..CAPACITY).for_each(|_| drop(Credit(give_back.clone())));
    let free = credit.then_some((give_back, free));
    tasks.push(Box::pin(client_reader(asked, trunk.clone(), me, free)));
    (ask, replies)
}

fn main() -> Result {
    for credit in [false, true] {
        let ((trunk, requests), (expect, expected)) = (bounded(CAPACITY), bounded(CAPACITY));
        let ((wire, there), (back, wire_back)) = (bounded(CAPACITY), bounded(CAPACITY));
        let mut tasks: Tasks = vec![Box::pin(backend(there, back))];
        tasks.push(Box::pin(backend_writer(requests, expect, wire)));
        tasks.push(Box::pin(backend_reader(wire_back, expected)));
        let (slow, slow_replies) = connect(&mut tasks, &trunk, credit);
        let (quick, quick_replies) = connect(&mut tasks, &trunk, credit);
        (0..20).try_for_each(|number| slow.try_send(format!("slow {number}")))?;
        until_nothing_moves(&mut tasks);
        quick.try_send("quick".into())?;
        until_nothing_moves(&mut tasks);
        let has_reply = quick_replies.try_recv().is_ok();
        assert_eq!(has_reply, credit);
        println!("credit: {credit}; a client does not read; the other has its reply: {has_reply}");
        // Nothing is lost in either case. All goes on when the slow client reads, if it ever does.
        for number in 0..20 {
            assert_eq!(slow_replies.try_recv()?.0, format!("SLOW {number}"));
            until_nothing_moves(&mut tasks);
        }
        assert_eq!((quick_replies.try_recv().is_ok(), tasks.len()), (!credit, 5), "all are well");
    }
    Ok(())
}
