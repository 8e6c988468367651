//! **New here**: an actor is a task that owns its state and that others reach by messages only.
//! It has a mailbox, the receiving end; they have its address, the sending end, which they may
//! clone. A message either tells (`Add`) or asks (`Total`, which brings the way back with it).
//! Many tasks change one number here, and there is no lock: the mailbox puts them in a row.
//!
//! **Still wrong**: this actor is not on a socket, so it moves no bytes for anybody.
//! `03_reader_writer` gives a socket two actors: one that only reads, and one that only writes.
//!
//! **Run**: `cargo run --example 02_one_actor`
#![allow(clippy::print_stdout, reason = "an example shows what it did")]

use async_channel::{Receiver, Sender, bounded};
use async_std::task;
use std::error::Error;

/// What may go wrong for a sender: the actor has ended. Any error will do to say so.
type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

/// A mailbox has an end, so that a sender which is faster than the actor has to wait. Without an
/// end the messages would pile up in memory until there is none left. Small, to make them wait.
const CAPACITY: usize = 4;
const SENDERS: u64 = 4;
const UP_TO: u64 = 1000;

enum Message {
    /// Tells. The sender goes on as soon as the message is in the mailbox.
    Add(u64),
    /// Asks. The answer comes over a channel of its own, which serves this one time.
    Total { reply: Sender<u64> },
}

/// The state is a plain field. Only `run` can reach it, and `run` is one task.
struct Counter {
    mailbox: Receiver<Message>,
    total: u64,
}

impl Counter {
    fn new() -> (Address, Counter) {
        let (sender, mailbox) = bounded(CAPACITY);
        (Address(sender), Counter { mailbox, total: 0 })
    }

    /// Does not spawn itself: it is a plain future, and the caller decides where it runs and who
    /// waits for it. So a test can run it too, to its end, with no other thread.
    async fn run(mut self) -> u64 {
        // `recv` fails when the mailbox is empty and the last address is gone. Nobody can send
        // any more, so that is the right moment to end, and nobody has to order it.
        while let Ok(message) = self.mailbox.recv().await {
            match message {
                Message::Add(number) => self.total += number,
                Message::Total { reply } => {
                    // Never full, for it has room for the one answer. Closed means that whoever
                    // asked did not wait for it, which is no concern of the actor.
                    let _ = reply.try_send(self.total);
                }
            }
        }
        self.total
    }
}

/// What everybody else has of the actor. It hides how a message looks, and how a reply travels.
#[derive(Clone)]
struct Address(Sender<Message>);

impl Address {
    async fn add(&self, number: u64) -> Result<()> {
        Ok(self.0.send(Message::Add(number)).await?)
    }

    async fn total(&self) -> Result<u64> {
        let (reply, answer) = bounded(1);
        self.0.send(Message::Total { reply }).await?;
        // If the actor ends before it answers, `reply` is dropped with the message, and this fails.
        Ok(answer.recv().await?)
    }
}

fn main() -> Result<()> {
    task::block_on(async {
        let (address, counter) = Counter::new();
        let counter = task::spawn(counter.run());

        let mut senders = Vec::new();
        for _ in 0..SENDERS {
            let address = address.clone();
            senders.push(task::spawn(async move {
                for number in 1..=UP_TO {
                    address.add(number).await?;
                }
                // A mailbox keeps the order of each sender. So this question comes after all that
                // this task has added, although the others are still adding at the same time.
                address.total().await
            }));
        }
        let sum = UP_TO * (UP_TO + 1) / 2;
        for sender in senders {
            let seen = sender.await?;
            assert!(seen >= sum, "a sender sees at least its own numbers");
            println!("sender: has added {sum}, and sees a total of {seen}");
        }

        let total = address.total().await?;
        assert_eq!(total, SENDERS * sum);
        // The senders have ended, and their addresses with them. This is the last one.
        drop(address);
        assert_eq!(counter.await, total, "the state comes back as the value of the task");
        println!("counter: ended with its last address, and left behind {total}");
        Ok(())
    })
}
