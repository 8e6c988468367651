//! The kernel's io_uring, and the memory that it reads and writes, kept for it until it has done so.
//!
//! The one module that may be `unsafe`: the kernel works on memory that it was told of before. What it was told of is
//! owned by [`Uring`] from then until the kernel has said that it is done, so nobody outside can be wrong about it; what
//! stands in `ring.rs` is ordinary code.
//!
//! It asks for Linux 6.1 (`DEFER_TASKRUN`, io_uring_setup(2)); what is older, or forbids it, is told by [`Uring::new`].

#![expect(unsafe_code, reason = "the kernel is told of memory, and reads and writes it later")]

use crate::socket::{Buffers, Chunk};
use io_uring::squeue::{self, PushError};
use io_uring::types::{BufRingEntry, CancelBuilder, Fd};
use io_uring::{IoUring, Probe, cqueue, opcode};
use std::collections::VecDeque;
use std::io;
use std::os::fd::RawFd;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU16, Ordering::Release};

/// Operations that are handed to the kernel by one call.
const ORDERS: u32 = 256;

/// What it has done, and nobody has looked at. It keeps what is more than that, at a cost.
const DONE: u32 = 2048;

/// Buffers that the kernel may fill at any time, for whichever socket something arrives on. A power of two; filled ones
/// are replaced after each turn, so no socket keeps them from another. [`Limits::AHEAD`](crate::Limits::AHEAD) is their sum.
pub(super) const GIVEN: u16 = 64;

/// The number of their group. There is one.
const GROUP: u16 = 0;

/// What can be waited for without reading or writing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    Read,
    Write,
    /// The peer sends no more, or is lost.
    End,
}

/// What the kernel has done.
pub(super) enum Done {
    /// Bytes, or the end of the stream. After the `last` it has stopped receiving.
    Received { place: usize, outcome: io::Result<Option<Chunk>>, last: bool },
    /// So many bytes of the chunk; if not all, then for want of room.
    Sent { place: usize, chunk: Chunk, outcome: io::Result<usize> },
    /// It is worth trying, or the wait was cancelled.
    Ready { place: usize, way: Way },
    /// The file that is watched all the time has something to say.
    Watched { last: bool },
}

/// What an operation is, in the low bits of its number; the place, or the number of what is sent, is in the others.
#[derive(Clone, Copy)]
#[repr(u64)]
enum Kind {
    Recv,
    Send,
    Readable,
    Writable,
    Ended,
    Watch,
    Cancel,
}

const KINDS: u32 = 3;

fn number(kind: Kind, of: usize) -> u64 {
    (of as u64) << KINDS | kind as u64
}

impl From<Way> for Kind {
    fn from(way: Way) -> Kind {
        match way {
            Way::Read => Kind::Readable,
            Way::Write => Kind::Writable,
            Way::End => Kind::Ended,
        }
    }
}

/// Whether this kernel has what a ring takes, and allows it.
///
/// # Errors
/// What it lacks or forbids.
pub(crate) fn probe() -> io::Result<()> {
    // On a thread of its own: when a ring goes, the kernel interrupts whatever the thread that made it waits for.
    let probe = || Uring::new(Buffers::new(1, 1)).map(drop);
    let probing = std::thread::Builder::new().spawn(probe)?;
    probing.join().map_err(|_| io::Error::other("the probe has panicked"))?
}

/// A ring, for the one thread that made it.
pub(super) struct Uring {
    ring: IoUring,
    given: Given,
    /// What it sends in this turn, and for which place.
    sending: Vec<Option<(usize, Chunk)>>,
    /// Operations for which it had no room.
    late: VecDeque<squeue::Entry>,
}

impl Uring {
    /// A ring that receives into buffers of this kind.
    ///
    /// # Errors
    /// In words: what this kernel lacks or forbids.
    pub(super) fn new(buffers: Buffers) -> io::Result<Uring> {
        let ring = IoUring::builder()
            .setup_cqsize(DONE)
            .setup_submit_all()
            .setup_single_issuer()
            // What arrives is dealt with when this thread asks, and not in the midst of what it does.
            .setup_defer_taskrun()
            .setup_taskrun_flag()
            .build(ORDERS)?;
        let mut probe = Probe::new();
        ring.submitter().register_probe(&mut probe)?;
        use opcode::{AsyncCancel, PollAdd, RecvMulti, Send};
        for code in [RecvMulti::CODE, Send::CODE, PollAdd::CODE, AsyncCancel::CODE] {
            if !probe.is_supported(code) {
                return Err(io::Error::other(format!("it has no operation {code}")));
            }
        }
        if !ring.params().is_feature_skip_cqe_on_success() {
            return Err(io::Error::other("it has a word for each success"));
        }
        let given = Given::new(&ring, buffers)?;
        Ok(Uring { ring, given, sending: Vec::new(), late: VecDeque::new() })
    }

    /// Receives from now on, into a buffer of ours each time, until it says that this was the last.
    pub(super) fn recv(&mut self, place: usize, socket: RawFd) {
        let entry = opcode::RecvMulti::new(Fd(socket), GROUP).build();
        self.push(entry.user_data(number(Kind::Recv, place)));
    }

    /// Sends what there is room for, in the next turn.
    pub(super) fn send(&mut self, place: usize, socket: RawFd, chunk: Chunk) {
        let number = number(Kind::Send, self.sending.len());
        let (start, length) = (chunk.as_ptr(), chunk.len() as u32);
        self.sending.push(Some((place, chunk)));
        use rustix::net::SendFlags;
        // DONTWAIT: it is tried once, while it is handed over, and has been done or has failed when the call returns; the
        // kernel puts off none of these (REQ_F_NOWAIT in its io_uring/net.c). WAITALL: if it was not all, it has failed.
        let how = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
        let flags = how.bits() as i32 | libc::MSG_WAITALL;
        let entry = opcode::Send::new(Fd(socket), start, length).flags(flags).build();
        // A success goes without saying, and so does not end a sleep.
        self.push(entry.user_data(number).flags(squeue::Flags::SKIP_SUCCESS));
    }

    /// Says once when it is worth reading or writing, or has ended.
    pub(super) fn wait_for(&mut self, place: usize, socket: RawFd, way: Way) {
        let mask = match way {
            Way::Read => rustix::event::PollFlags::IN,
            Way::Write => rustix::event::PollFlags::OUT,
            Way::End => rustix::event::PollFlags::RDHUP,
        };
        let entry = opcode::PollAdd::new(Fd(socket), mask.bits().into()).build();
        self.push(entry.user_data(number(way.into(), place)));
    }

    /// Says each time when this becomes readable.
    pub(super) fn watch(&mut self, file: RawFd) {
        let mask = rustix::event::PollFlags::IN.bits().into();
        let entry = opcode::PollAdd::new(Fd(file), mask).multi(true).build();
        self.push(entry.user_data(number(Kind::Watch, 0)));
    }

    /// Has it stop receiving, or waiting: it says so as if it had ended by itself, unless it has already.
    pub(super) fn cancel_recv(&mut self, place: usize) {
        self.cancel(number(Kind::Recv, place));
    }

    /// See [`Uring::cancel_recv`].
    pub(super) fn cancel_wait(&mut self, place: usize, way: Way) {
        self.cancel(number(way.into(), place));
    }

    fn cancel(&mut self, what: u64) {
        self.push(opcode::AsyncCancel::new(what).build().user_data(number(Kind::Cancel, 0)));
    }

    /// Only what this type keeps may stand in `entry`: memory of `sending` and of `given`.
    fn push(&mut self, entry: squeue::Entry) {
        if self.late.is_empty() {
            for _ in 0..2 {
                // SAFETY: the memory that the entry names stays in `sending` until the turn in which the kernel has sent it, or
                // has said that it cannot; what it receives into was registered, and is kept in `given`. The others name
                // none. A file that has been closed meanwhile is an error that the kernel tells.
                let Err(PushError { .. }) = (unsafe { self.ring.submission().push(&entry) }) else {
                    return;
                };
                // Full: it takes them. If it cannot now, it can later.
                let _ = self.ring.submit();
            }
        }
        self.late.push_back(entry);
    }

    /// Hands over what it is to do, and says what it has done: if nothing, and it is to `sleep`, when it has.
    pub(super) fn turn(&mut self, sleep: bool, done: &mut Vec<Done>) {
        for entry in std::mem::take(&mut self.late) {
            self.push(entry);
        }
        let (idle, called) = {
            let orders = self.ring.submission();
            (orders.is_empty(), orders.taskrun() || orders.cq_overflow())
        };
        if sleep || called || !idle {
            // It fails for a signal, or for want of memory; what it was handed is there still.
            let _ = self.ring.submit_and_wait(sleep.into());
        }
        let Uring { ring, given, sending, late } = self;
        for entry in ring.completion() {
            let (number, flags) = (entry.user_data(), entry.flags());
            let place = (number >> KINDS) as usize;
            let last = !cqueue::more(flags);
            let outcome = usize::try_from(entry.result())
                .map_err(|_| io::Error::from_raw_os_error(-entry.result()));
            match number & ((1 << KINDS) - 1) {
                kind if kind == Kind::Recv as u64 => {
                    let buffer = cqueue::buffer_select(flags).map(|number| given.take(number));
                    let outcome = outcome.map(|count| {
                        let mut chunk = buffer.filter(|_| count > 0)?;
                        chunk.truncate(count);
                        Some(chunk)
                    });
                    done.push(Done::Received { place, outcome, last });
                }
                kind if kind == Kind::Send as u64 => {
                    if let Some((place, chunk)) = sending.get_mut(place).and_then(Option::take) {
                        done.push(Done::Sent { place, chunk, outcome });
                    }
                }
                kind if kind == Kind::Readable as u64 => {
                    done.push(Done::Ready { place, way: Way::Read });
                }
                kind if kind == Kind::Writable as u64 => {
                    done.push(Done::Ready { place, way: Way::Write });
                }
                kind if kind == Kind::Ended as u64 => {
                    done.push(Done::Ready { place, way: Way::End });
                }
                kind if kind == Kind::Watch as u64 => done.push(Done::Watched { last }),
                // A cancel: what it was for says how it has ended.
                _ => {}
            }
        }
        given.show();
        let orders = ring.submission();
        if late.is_empty() && orders.is_empty() && !orders.cq_overflow() {
            // All were handed over, and what has failed was told above.
            for (place, chunk) in sending.drain(..).flatten() {
                let outcome = Ok(chunk.len());
                done.push(Done::Sent { place, chunk, outcome });
            }
        }
    }
}

impl Drop for Uring {
    fn drop(&mut self) {
        // The memory goes next: nothing may be under way. It fails if nothing is.
        let _ = self.ring.submit();
        let _ = self.ring.submitter().register_sync_cancel(None, CancelBuilder::any());
        let _ = self.ring.submitter().unregister_buf_ring(GROUP);
    }
}

/// The buffers that the kernel may fill, and the list that it takes them from (io_uring_register_buf_ring(3)).
struct Given {
    list: NonNull<List>,
    /// What the kernel has, by number.
    chunks: Vec<Chunk>,
    buffers: Buffers,
    /// How many were ever put into the list, and how many the kernel has been shown, in its own counting.
    put: u16,
}

/// The kernel wants it to begin a page.
#[repr(C, align(4096))]
struct List([BufRingEntry; GIVEN as usize]);

impl Given {
    fn new(ring: &IoUring, buffers: Buffers) -> io::Result<Given> {
        // SAFETY: entries are numbers, for which 0 is a value like any other.
        let list: Box<List> = unsafe { Box::new(std::mem::zeroed()) };
        let list = NonNull::from(Box::leak(list));
        let chunks: Vec<_> = (0..GIVEN).map(|_| buffers.lease()).collect();
        let mut given = Given { list, chunks, buffers, put: 0 };
        let start = list.as_ptr() as u64;
        // SAFETY: the list is freed when `given` is dropped: after the group was unregistered, or never registered.
        unsafe { ring.submitter().register_buf_ring_with_flags(start, GIVEN, GROUP, 0)? };
        for number in 0..GIVEN {
            given.put(number);
        }
        given.show();
        Ok(given)
    }

    /// The buffer that the kernel has filled. It gets another.
    fn take(&mut self, number: u16) -> Chunk {
        let next = self.buffers.lease();
        let taken = std::mem::replace(&mut self.chunks[usize::from(number)], next);
        self.put(number);
        taken
    }

    fn put(&mut self, number: u16) {
        let chunk = &mut self.chunks[usize::from(number)];
        let place = usize::from(self.put % GIVEN);
        // SAFETY: it lies in the list. The kernel does not look at it before it is shown: it has given this place back, for
        // there are as many places as buffers, and it had given back a buffer.
        let entry = unsafe { &mut *self.list.cast::<BufRingEntry>().add(place).as_ptr() };
        entry.set_addr(chunk.as_mut_ptr() as u64);
        entry.set_len(chunk.len() as u32);
        entry.set_bid(number);
        self.put = self.put.wrapping_add(1);
    }

    /// Shows the kernel what was put into the list.
    fn show(&self) {
        // SAFETY: the list is there. Its first entry has the place of the counter, which nothing else writes.
        let tail = unsafe { BufRingEntry::tail(self.list.cast().as_ptr()) };
        // SAFETY: it is aligned, and lives as long as the list; the kernel only reads it.
        let tail = unsafe { AtomicU16::from_ptr(tail.cast_mut()) };
        tail.store(self.put, Release);
    }
}

impl Drop for Given {
    fn drop(&mut self) {
        // SAFETY: it was a box, and nobody has it any more: the kernel has forgotten the group, or never knew it.
        drop(unsafe { Box::from_raw(self.list.as_ptr()) });
    }
}
