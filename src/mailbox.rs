//! Mailboxes: the only way in which two actors meet.
//!
//! ```text
//!   Address ──send──> [ m m m ] ──recv──> Mailbox
//!   (many, cloned)    bounded             (one owner)
//! ```
//!
//! A thin coat over async-channel that adds two of the rules by which a connection ends (ARCHITECTURE.md, "Endings"):
//! a mailbox empties itself when its owner goes, and an address can wait for that to happen.

use crate::runtime::until;
#[cfg(feature = "testing")]
use crate::testing::waits::{self, Wait};
use async_channel::TrySendError;
use atomic_waker::AtomicWaker;
use pin_project_lite::pin_project;
use std::fmt;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

/// Makes a mailbox for at most `capacity` messages, and its first address.
pub(crate) fn mailbox<M>(capacity: usize) -> (Address<M>, Mailbox<M>) {
    let (sender, receiver) = async_channel::bounded(capacity);
    let (id, owner) = (Id::next(), Owner::default());
    let mailbox = Mailbox { receiver, owner: owner.clone(), was_empty: false, high_water: 0, id };
    (Address { sender, owner, id }, mailbox)
}

/// Tells mailboxes apart, for the words in which the simulator says who waits for whom. Nothing without `testing`.
#[derive(Clone, Copy)]
struct Id(#[cfg(feature = "testing")] u64);

impl Id {
    fn next() -> Id {
        Id(
            #[cfg(feature = "testing")]
            waits::number(),
        )
    }
}

/// The same future; with `testing`, one that says what it waits for.
macro_rules! noted {
    ($wait:ident, $id:expr, $future:expr) => {{
        #[cfg(feature = "testing")]
        let future = waits::noted(Wait::$wait($id.0), $future);
        #[cfg(not(feature = "testing"))]
        let future = {
            let Id() = $id;
            $future
        };
        future
    }};
}

/// The sending end.
pub(crate) struct Address<M> {
    sender: async_channel::Sender<M>,
    // Behind the sender: the owner may have to hear that this was the last one.
    owner: Owner,
    id: Id,
}

/// The receiving end.
pub(crate) struct Mailbox<M> {
    receiver: async_channel::Receiver<M>,
    /// Woken for each message. The channel can wake as well, and any number of receivers; that costs a lock and an
    /// allocation for each wait, and a mailbox has one owner.
    owner: Owner,
    /// It was empty a moment ago: whoever waits need not look before it says so.
    was_empty: bool,
    high_water: usize,
    id: Id,
}

/// Knows where a mailbox is, and does not keep it open: for whoever may have to send, and must not be waited for.
pub(crate) struct WeakAddress<M> {
    sender: async_channel::WeakSender<M>,
    owner: Owner,
    id: Id,
}

#[cfg(feature = "testing")]
type Leaving<'a, M> = waits::Noted<async_channel::Send<'a, M>>;
#[cfg(not(feature = "testing"))]
type Leaving<'a, M> = async_channel::Send<'a, M>;

pin_project! {
    /// A message on its way into a mailbox. Written out: an async fn would have room for the message four times.
    pub(crate) struct Sending<'a, M> {
        #[pin]
        leaving: Leaving<'a, M>,
        owner: &'a Owner,
    }
}

impl<M> Future for Sending<'_, M> {
    type Output = Result<(), M>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let left = ready!(this.leaving.poll(cx));
        this.owner.0.wake();
        Poll::Ready(left.map_err(|error| error.into_inner()))
    }
}

/// The place of the one who waits for messages, woken when an address goes as well.
#[derive(Clone, Default)]
struct Owner(Arc<AtomicWaker>);

impl Drop for Owner {
    fn drop(&mut self) {
        self.0.wake();
    }
}

impl<M> Address<M> {
    /// Waits for room and leaves the message; the wait is the back-pressure. If the owner of the mailbox has ended, the message
    /// comes back.
    pub(crate) fn send(&self, message: M) -> Sending<'_, M> {
        Sending { leaving: noted!(Room, self.id, self.sender.send(message)), owner: &self.owner }
    }

    /// Leaves the message if there is room now; or else it comes back.
    pub(crate) fn try_send(&self, message: M) -> Result<(), TrySendError<M>> {
        let left = self.sender.try_send(message);
        self.owner.0.wake();
        left
    }

    /// Waits until the owner of the mailbox has ended.
    pub(crate) fn closed(&self) -> impl Future<Output = ()> + Send + '_
    where
        M: Send,
    {
        noted!(Closing, self.id, until(|| self.sender.is_closed(), self.sender.closed()))
    }

    /// Whether the owner of the mailbox has ended.
    pub(crate) fn is_closed(&self) -> bool {
        self.sender.is_closed()
    }

    /// Has nothing more left in the mailbox, by anybody; what waits there is still taken.
    pub(crate) fn close(&self) {
        self.sender.close();
        self.owner.0.wake();
    }

    pub(crate) fn downgrade(&self) -> WeakAddress<M> {
        WeakAddress { sender: self.sender.downgrade(), owner: self.owner.clone(), id: self.id }
    }
}

impl<M> WeakAddress<M> {
    /// An address, unless the owner of the mailbox has ended, or all its addresses are gone already.
    pub(crate) fn upgrade(&self) -> Option<Address<M>> {
        self.sender.upgrade().map(|sender| Address {
            sender,
            owner: self.owner.clone(),
            id: self.id,
        })
    }
}

impl<M> Mailbox<M> {
    /// The next message, or `None` once every address is gone and all messages were taken.
    pub(crate) fn recv(&mut self) -> impl Future<Output = Option<M>> + '_ {
        noted!(Message, self.id, poll_fn(|cx| self.poll_recv(cx)))
    }

    fn poll_recv(&mut self, cx: &mut Context<'_>) -> Poll<Option<M>> {
        use async_channel::TryRecvError::{Closed, Empty};
        let mut registered = std::mem::take(&mut self.was_empty);
        if registered {
            self.owner.0.register(cx.waker());
        }
        loop {
            match self.receiver.try_recv() {
                Ok(message) => {
                    // A sender on another thread may have taken the place that has just become free: hence the bound.
                    let waiting = (self.receiver.len() + 1).min(self.capacity());
                    self.high_water = self.high_water.max(waiting);
                    return Poll::Ready(Some(message));
                }
                Err(Closed) => return Poll::Ready(None),
                Err(Empty) if registered => return Poll::Pending,
                Err(Empty) => {
                    // And once more, for what was left before that.
                    self.owner.0.register(cx.waker());
                    registered = true;
                }
            }
        }
    }

    /// The next message if there is one now.
    pub(crate) fn try_recv(&mut self) -> Option<M> {
        let next = self.receiver.try_recv().ok();
        self.was_empty = next.is_none();
        next
    }

    /// How many messages wait.
    pub(crate) fn len(&self) -> usize {
        self.receiver.len()
    }

    /// How many messages may wait.
    pub(crate) fn capacity(&self) -> usize {
        // Only an unbounded channel has none, and there is no such mailbox.
        self.receiver.capacity().unwrap_or(usize::MAX)
    }

    /// The most messages that `recv` ever found waiting.
    pub(crate) fn high_water(&self) -> usize {
        self.high_water
    }
}

impl<M> Drop for Mailbox<M> {
    /// Messages would otherwise live on until the last address goes: a chunk, and with it a pooled buffer, would be
    /// held by a sender that has no use for it, and an address inside a message would keep a third actor waiting.
    fn drop(&mut self) {
        self.receiver.close();
        while self.receiver.try_recv().is_ok() {}
    }
}

impl<M> Clone for Address<M> {
    fn clone(&self) -> Self {
        Address { sender: self.sender.clone(), owner: self.owner.clone(), id: self.id }
    }
}

impl<M> Clone for WeakAddress<M> {
    fn clone(&self) -> Self {
        WeakAddress { sender: self.sender.clone(), owner: self.owner.clone(), id: self.id }
    }
}

impl<M> fmt::Debug for Address<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Address({} waiting)", self.sender.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_lite::future::{block_on, poll_once};
    use std::sync::Arc;

    #[test]
    fn messages_come_in_order_and_outlive_their_address() {
        block_on(async {
            let (address, mut mailbox) = mailbox(2);
            address.send(1).await.expect("the mailbox lives");
            address.send(2).await.expect("the mailbox lives");
            assert_eq!(address.try_send(3), Err(TrySendError::Full(3)));
            drop(address);
            assert_eq!(mailbox.recv().await, Some(1));
            assert_eq!(mailbox.recv().await, Some(2));
            assert_eq!(mailbox.recv().await, None);
            assert_eq!(mailbox.high_water(), 2);
        });
    }

    #[test]
    fn a_full_mailbox_holds_its_sender_until_there_is_room() {
        block_on(async {
            let (address, mut mailbox) = mailbox(1);
            address.send(1).await.expect("the mailbox lives");
            let mut waiting = Box::pin(address.send(2));
            assert_eq!(poll_once(&mut waiting).await, None);
            assert_eq!(mailbox.recv().await, Some(1));
            assert_eq!(waiting.await, Ok(()));
        });
    }

    #[test]
    fn a_mailbox_empties_itself_when_its_owner_ends() {
        let (address, mailbox) = mailbox(4);
        let message = Arc::new(());
        let left = address.try_send(Arc::clone(&message));
        assert_eq!(left, Ok(()));
        drop(mailbox);
        assert_eq!(Arc::strong_count(&message), 1, "the message is dropped");
        let left = address.try_send(Arc::clone(&message));
        assert_eq!(left, Err(TrySendError::Closed(message)));
    }

    #[test]
    fn an_address_learns_that_the_owner_has_ended() {
        block_on(async {
            let (address, mailbox) = mailbox::<()>(1);
            let mut closed = Box::pin(address.closed());
            assert_eq!(poll_once(&mut closed).await, None);
            drop(mailbox);
            closed.await;
            assert_eq!(address.send(()).await, Err(()));
        });
    }

    #[test]
    fn an_owner_on_another_thread_hears_of_each_message_and_of_the_end() {
        for looks_first in [false, true] {
            let (address, mut mailbox) = mailbox(1);
            let owner = std::thread::spawn(move || {
                block_on(async {
                    let mut sum = 0;
                    loop {
                        let found = if looks_first { mailbox.try_recv() } else { None };
                        let next = match found {
                            None => mailbox.recv().await,
                            found => found,
                        };
                        let Some(number) = next else { return sum };
                        sum += number;
                    }
                })
            });
            for number in 0..10_000 {
                assert_eq!(block_on(address.send(number)), Ok(()));
            }
            let last = address.clone();
            drop(address);
            drop(last);
            assert_eq!(owner.join().expect("it has not panicked"), 49_995_000);
        }
    }

    #[test]
    fn a_weak_address_keeps_no_mailbox_open() {
        block_on(async {
            let (address, mut mailbox) = mailbox(1);
            let weak = address.downgrade();
            let second = weak.upgrade().expect("the mailbox is open");
            drop(address);
            assert_eq!(second.send(1).await, Ok(()));
            drop(second);
            assert_eq!(mailbox.recv().await, Some(1));
            assert_eq!(mailbox.recv().await, None);
            assert!(weak.upgrade().is_none());
        });
    }
}
