//! Real sockets: TCP and unix-domain, watched by async-std's reactor, by an epoll of our own, or by an io_uring.
//!
//! Reads wait for readiness first and then read once. async-std's own stream tries, waits, and tries again: three
//! system calls a message instead of one.

#[cfg(target_os = "linux")]
mod edge;
mod ready;
#[cfg(target_os = "linux")]
mod ring;
#[cfg(target_os = "linux")]
mod tasks;
#[cfg(target_os = "linux")]
mod threads;
#[cfg(target_os = "linux")]
mod uring;

pub(crate) use ready::Watcher;
#[cfg(target_os = "linux")]
pub(crate) use tasks::linger;
#[cfg(target_os = "linux")]
pub(crate) use threads::Threads;
#[cfg(target_os = "linux")]
pub(crate) use uring::probe;

use crate::config::Keepalive;
use crate::runtime::{Listen, Listening, Options};
use crate::socket::{Buffers, Chunk, Socket, advance};
use crate::{Boxed, Endpoint};
use async_io::Timer;
use ready::{Readable, Ready, Seen};
use rustix::net::{RecvFlags, SendAncillaryBuffer, SendFlags};
use socket2::{Domain, SockAddr, SockRef, TcpKeepalive, Type};
use std::collections::VecDeque;
use std::fs;
use std::future::poll_fn;
use std::io::{self, ErrorKind, IoSlice};
use std::net::{Shutdown, SocketAddr};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

/// The most chunks that one writev takes.
const BATCH: usize = 64;

/// How long to wait for a place in the backlog of a unix socket.
const BACKLOG_PAUSE: Duration = Duration::from_millis(5);

/// For what comes and goes, never for a message.
#[cfg(target_os = "linux")]
fn lock<T>(mutex: &std::sync::Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    // Whoever has panicked has left it as it was.
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// A connected TCP or unix-domain socket.
pub(crate) struct Stream {
    ready: Ready,
    buffers: Buffers,
    /// What the writer is doing; see [`Stream::end_of_stream`].
    writer: AtomicU8,
}

/// No send is under way and none has failed.
const WRITER_IDLE: u8 = 0;
/// A send is under way, on another thread.
const WRITER_SENDING: u8 = 1;
/// A send has failed.
const WRITER_FAILED: u8 = 2;

impl Stream {
    /// Connects.
    ///
    /// # Errors
    /// What the system says; for a name, that names are not dialled.
    pub(crate) async fn dial(
        endpoint: &Endpoint,
        options: &Options,
        watcher: &Watcher,
    ) -> io::Result<Stream> {
        let (domain, address) = address_of(endpoint)?;
        let socket = socket2::Socket::new(domain, Type::STREAM.nonblocking(), None)?;
        prepare(&socket, domain, options.keepalive)?;
        let mut started = socket.connect(&address);
        // A unix socket's connect does not go on in the background: while the backlog is full it says "again" (unix(7)).
        while let Err(error) = &started
            && error.kind() == ErrorKind::WouldBlock
        {
            Timer::after(BACKLOG_PAUSE).await;
            started = socket.connect(&address);
        }
        let stream = Stream::new(socket, options.buffers.clone(), watcher)?;
        match started {
            // A backend on this machine has answered already, though connect(2) never says so: no wait, and no timer for it.
            Err(error)
                if error.raw_os_error() == Some(EINPROGRESS)
                    && stream.socket().peer_addr().is_ok() => {}
            Err(error) if error.raw_os_error() == Some(EINPROGRESS) => {
                poll_fn(|cx| stream.ready.poll_room(cx, Seen::NOTHING)).await?;
                match stream.socket().take_error()? {
                    None => {}
                    // It had accepted, and has reset since: a refusal is another error (tcp_reset in Linux). What it
                    // said in between can be read. Asking has used up the kernel's word of the reset.
                    Some(error)
                        if matches!(
                            error.kind(),
                            ErrorKind::ConnectionReset | ErrorKind::BrokenPipe
                        ) =>
                    {
                        stream.writer.store(WRITER_FAILED, Ordering::SeqCst);
                    }
                    Some(error) => return Err(error),
                }
            }
            started => started?,
        }
        if is_self_connected(stream.socket(), endpoint)? {
            return Err(ErrorKind::ConnectionRefused.into());
        }
        Ok(stream)
    }

    fn new(socket: socket2::Socket, buffers: Buffers, watcher: &Watcher) -> io::Result<Stream> {
        let ready = Ready::stream(socket, watcher, buffers.size())?;
        Ok(Stream { ready, buffers, writer: AtomicU8::new(WRITER_IDLE) })
    }

    fn socket(&self) -> &socket2::Socket {
        self.ready.socket()
    }

    /// The kernel reported the end of the stream. Was it one?
    ///
    /// A reset is told once. If a send on another thread asks first, it fails, and the read that follows sees an
    /// ordinary end. So each send says beforehand that it is under way, and an end of stream is believed only when
    /// none is: the kernel's socket lock orders the two calls, and these stores lie around them.
    fn end_of_stream(&self, cx: &mut Context<'_>) -> Poll<io::Result<Option<Chunk>>> {
        // In this order: it has failed before it is not under way any more.
        let under_way = self.ready.is_writing();
        match self.writer.load(Ordering::SeqCst) {
            WRITER_IDLE if !under_way && !self.ready.has_failed() => Poll::Ready(Ok(None)),
            WRITER_IDLE | WRITER_FAILED if !under_way => {
                Poll::Ready(Err(ErrorKind::ConnectionReset.into()))
            }
            _ => {
                // One system call on another thread is all that this waits for, or one turn of the ring.
                self.ready.read_again();
                cx.waker().wake_by_ref();
                Poll::Pending
            }
        }
    }

    /// Runs a system call of the writer, with its outcome recorded for the reader.
    fn writing<T>(&self, call: impl FnOnce(&socket2::Socket) -> io::Result<T>) -> io::Result<T> {
        self.writer.store(WRITER_SENDING, Ordering::SeqCst);
        let done = call(self.socket());
        let failed = matches!(&done, Err(error) if !is_retry(error));
        let state = if failed { WRITER_FAILED } else { WRITER_IDLE };
        self.writer.store(state, Ordering::SeqCst);
        done
    }
}

impl Socket for Stream {
    fn poll_recv(&self, cx: &mut Context<'_>) -> Poll<io::Result<Option<Chunk>>> {
        loop {
            let seen = match ready!(self.ready.poll_readable(cx))? {
                Readable::Try(seen) => seen,
                #[cfg(target_os = "linux")]
                Readable::Chunk(chunk) => return Poll::Ready(Ok(Some(chunk))),
                #[cfg(target_os = "linux")]
                Readable::End => return self.end_of_stream(cx),
            };
            let mut chunk = self.buffers.lease();
            match receive(self.socket(), &mut chunk) {
                Ok(0) => return self.end_of_stream(cx),
                Ok(count) => {
                    self.ready.was_read(seen, count, count == chunk.len());
                    chunk.truncate(count);
                    return Poll::Ready(Ok(Some(chunk)));
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if is_retry(&error) => self.ready.had_nothing(seen),
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }

    fn poll_send(
        &self,
        cx: &mut Context<'_>,
        chunks: &mut VecDeque<Chunk>,
    ) -> Poll<io::Result<usize>> {
        loop {
            if let Some(taken) = self.ready.poll_send(cx, chunks) {
                return taken;
            }
            let seen = self.ready.before_write();
            match self.writing(|socket| send(socket, chunks)) {
                Ok(count) => {
                    advance(chunks, count);
                    return Poll::Ready(Ok(count));
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if is_retry(&error) => {
                    ready!(self.ready.poll_room(cx, seen))?;
                }
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }

    fn poll_flush(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.ready.poll_flush(cx)
    }

    fn shutdown_write(&self) -> io::Result<()> {
        if self.ready.unsent() > 0 {
            // The end would overtake it.
            return Err(ErrorKind::WouldBlock.into());
        }
        self.writing(|socket| socket.shutdown(Shutdown::Write))
    }

    fn pending(&self) -> usize {
        self.ready.unsent() + unacknowledged(self.socket())
    }

    fn delivered(&self) -> Boxed<'_, ()> {
        Box::pin(async {
            // Closing with linger 0 throws away what the kernel has not got across. There is no event for "the peer
            // has it all", so this asks, at growing intervals; it happens only before a reset.
            let mut pause = Duration::from_millis(1);
            while self.pending() > 0 {
                if !matches!(self.socket().take_error(), Ok(None)) {
                    return;
                }
                Timer::after(pause).await;
                pause = (pause * 2).min(Duration::from_millis(100));
            }
        })
    }

    fn disarm(&self) {
        // It fails only on what is no socket; the peer then gets a reset, which is the safe side.
        let _ = self.socket().set_linger(None);
    }
}

/// Reads what there is. (By libc it would be a place where a thread can be cancelled, of which each call keeps account.)
fn receive(socket: &socket2::Socket, room: &mut [u8]) -> io::Result<usize> {
    let (read, _) = rustix::net::recv(socket, room, RecvFlags::empty())?;
    Ok(read)
}

/// Writes from the front of these, and says how much.
fn send(socket: &socket2::Socket, chunks: &VecDeque<Chunk>) -> io::Result<usize> {
    // A peer that has gone must be an error here, not a signal that ends the embedder's process.
    let flags = SendFlags::NOSIGNAL;
    if let (Some(only), 1) = (chunks.front(), chunks.len()) {
        return Ok(rustix::net::send(socket, only, flags)?);
    }
    let mut slices = [IoSlice::new(&[]); BATCH];
    for (slice, chunk) in slices.iter_mut().zip(chunks) {
        *slice = IoSlice::new(chunk);
    }
    let slices = &slices[..chunks.len().min(BATCH)];
    Ok(rustix::net::sendmsg(socket, slices, &mut SendAncillaryBuffer::default(), flags)?)
}

/// Bytes that were sent on a TCP socket and that the peer's kernel has not acknowledged; 0 where none can be pending.
///
/// The one `unsafe` outside of `net/uring.rs`: the kernel has the figure (SIOCOUTQ, tcp(7)) and no safe wrapper asks for it.
/// Without it, a backend's last answer to a slow client would be cut off by the reset that must follow it.
#[cfg(target_os = "linux")]
#[expect(unsafe_code, reason = "rustix has the ioctl, but not with this request's number")]
fn unacknowledged(socket: &socket2::Socket) -> usize {
    use rustix::ioctl::{Getter, Opcode, ioctl};
    // The same number by another name; it is not the same on every processor.
    const SIOCOUTQ: Opcode = libc::TIOCOUTQ as Opcode;
    if !is_tcp(socket) {
        // What was sent on a unix socket is in the peer's queue already, and stays there.
        return 0;
    }
    // SAFETY: SIOCOUTQ writes one int through the pointer that `Getter` provides for exactly that, and reads nothing.
    let pending = unsafe { ioctl(socket, Getter::<SIOCOUTQ, i32>::new()) };
    pending.ok().and_then(|count| usize::try_from(count).ok()).unwrap_or(0)
}

/// Other systems keep the figure elsewhere, or not at all: there a reset may cut off what a slow peer was sent last.
#[cfg(not(target_os = "linux"))]
fn unacknowledged(_: &socket2::Socket) -> usize {
    0
}

/// A listening socket.
pub(crate) struct Listener {
    /// How its clients are watched.
    watcher: Watcher,
    ready: Ready,
    endpoint: Endpoint,
    buffers: Buffers,
    file: Option<SocketFile>,
}

impl Listener {
    /// Listens.
    ///
    /// # Errors
    /// What the system says; for a unix socket also that another process listens there, or that the path is something
    /// else than a socket.
    pub(crate) fn bind(
        endpoint: &Endpoint,
        options: &Listening,
        watcher: Watcher,
    ) -> io::Result<Listener> {
        let (domain, address) = address_of(endpoint)?;
        let socket = socket2::Socket::new(domain, Type::STREAM.nonblocking(), None)?;
        // Accepted sockets inherit all of this (socket(7)), which saves the calls for each of them.
        prepare(&socket, domain, options.socket.keepalive)?;
        let file = match endpoint {
            Endpoint::Unix(path) => {
                bind_file(&socket, &address, path)?;
                let file = SocketFile::of(path.clone());
                if let Some(mode) = options.unix_mode {
                    // Before listen(2), so that nobody gets in by the umask's permissions.
                    fs::set_permissions(path, fs::Permissions::from_mode(mode))?;
                }
                file
            }
            _ => {
                socket.set_reuse_address(true)?;
                if domain == Domain::IPV6 {
                    // As in nginx: [::] is IPv6, and 0.0.0.0 can be listened on beside it. As in Go, where asked.
                    socket.set_only_v6(!options.dual_stack)?;
                }
                socket.bind(&address)?;
                None
            }
        };
        socket.listen(i32::try_from(options.backlog).unwrap_or(i32::MAX))?;
        Listener::of(socket, options, watcher, file)
    }

    /// Accepts on a socket that listens already, for another process made it; the file of a unix socket stays with that.
    ///
    /// # Errors
    /// If it is no socket, or does not listen.
    pub(crate) fn adopt(
        socket: OwnedFd,
        options: &Listening,
        watcher: Watcher,
    ) -> io::Result<Listener> {
        let socket = socket2::Socket::from(socket);
        if !socket.is_listener()? {
            let text = "it does not listen";
            return Err(io::Error::new(ErrorKind::InvalidInput, text));
        }
        socket.set_nonblocking(true)?;
        Listener::of(socket, options, watcher, None)
    }

    fn of(
        socket: socket2::Socket,
        options: &Listening,
        watcher: Watcher,
        file: Option<SocketFile>,
    ) -> io::Result<Listener> {
        let local = socket.local_addr()?;
        let endpoint = match (local.as_socket(), local.as_pathname()) {
            (Some(address), _) => Endpoint::Ip(address),
            (None, Some(path)) => Endpoint::Unix(path.to_path_buf()),
            (None, None) => return Err(io::Error::other("it listens at no address")),
        };
        let ready = Ready::listener(socket, &watcher)?;
        let buffers = options.socket.buffers.clone();
        Ok(Listener { ready, watcher, endpoint, buffers, file })
    }
}

impl Listen for Listener {
    fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    fn try_accept(&self) -> io::Result<(Arc<dyn Socket>, Endpoint)> {
        let seen = self.ready.before_read();
        let (socket, peer) = accept(self.ready.socket()).inspect_err(|error| {
            if error.kind() == ErrorKind::WouldBlock {
                self.ready.had_nothing(seen);
            }
        })?;
        // A unix client has no address of its own: it is named by where it came in.
        let peer = peer.map_or_else(|| self.endpoint.clone(), Endpoint::Ip);
        Ok((Arc::new(Stream::new(socket, self.buffers.clone(), &self.watcher)?), peer))
    }

    fn share(&self) -> io::Result<OwnedFd> {
        Ok(self.ready.socket().try_clone()?.into())
    }

    fn poll_waiting(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.ready.poll_readable(cx).map_ok(|_| ())
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.ready.forget();
        if let Some(file) = self.file.take() {
            file.remove();
        }
    }
}

/// The file of a unix socket that this process made. Another process may have put its own there since.
struct SocketFile {
    path: PathBuf,
    inode: (u64, u64),
}

impl SocketFile {
    fn of(path: PathBuf) -> Option<SocketFile> {
        let inode = inode(&path)?;
        Some(SocketFile { path, inode })
    }

    fn remove(self) {
        if inode(&self.path) == Some(self.inode) {
            // Nothing is lost if it stays: the next start finds it stale.
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn inode(path: &Path) -> Option<(u64, u64)> {
    let data = fs::symlink_metadata(path).ok()?;
    Some((data.dev(), data.ino()))
}

/// Binds a unix socket to its path; a file that a dead process left there is replaced.
fn bind_file(socket: &socket2::Socket, address: &SockAddr, path: &Path) -> io::Result<()> {
    match socket.bind(address) {
        Err(error) if error.kind() == ErrorKind::AddrInUse => {}
        bound => return bound,
    }
    if !fs::symlink_metadata(path)?.file_type().is_socket() {
        let text = "the path exists and is not a socket; remove it or choose another";
        return Err(io::Error::new(ErrorKind::AlreadyExists, text));
    }
    let probe = socket2::Socket::new(Domain::UNIX, Type::STREAM.nonblocking(), None)?;
    match probe.connect(address) {
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => {
            fs::remove_file(path)?;
            socket.bind(address)
        }
        _ => Err(rustix::io::Errno::ADDRINUSE.into()),
    }
}

fn address_of(endpoint: &Endpoint) -> io::Result<(Domain, SockAddr)> {
    match endpoint {
        Endpoint::Ip(address) => Ok((Domain::for_address(*address), (*address).into())),
        Endpoint::Unix(path) => Ok((Domain::UNIX, SockAddr::unix(path)?)),
        Endpoint::Name { host, .. } => Err(io::Error::new(
            ErrorKind::InvalidInput,
            format!("the name {host} was not resolved"),
        )),
    }
}

/// Takes a client that waits, by one call where there is one for all of it (accept4(2)).
fn accept(listening: &socket2::Socket) -> io::Result<(socket2::Socket, Option<SocketAddr>)> {
    #[cfg(target_os = "linux")]
    {
        use rustix::net::{SocketFlags, acceptfrom_with};
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        let (socket, peer) = acceptfrom_with(listening, flags)?;
        Ok((socket.into(), peer.and_then(|peer| SocketAddr::try_from(peer).ok())))
    }
    #[cfg(not(target_os = "linux"))]
    {
        let (socket, peer) = listening.accept()?;
        socket.set_nonblocking(true)?;
        Ok((socket, peer.as_socket()))
    }
}

/// Arms the socket (see [`Socket`]) and sets what every socket has.
fn prepare(
    socket: &socket2::Socket,
    domain: Domain,
    keepalive: Option<Keepalive>,
) -> io::Result<()> {
    socket.set_linger(Some(Duration::ZERO))?;
    if domain == Domain::UNIX {
        return Ok(());
    }
    socket.set_tcp_nodelay(true)?;
    if let Some(keepalive) = keepalive {
        let mut probes = TcpKeepalive::new().with_time(keepalive.idle);
        if let Some(interval) = keepalive.interval {
            probes = probes.with_interval(interval);
        }
        if let Some(count) = keepalive.count {
            probes = probes.with_retries(count);
        }
        socket.set_tcp_keepalive(&probes)?;
    }
    Ok(())
}

fn is_tcp(socket: &socket2::Socket) -> bool {
    SockRef::from(socket).domain().is_ok_and(|domain| domain != Domain::UNIX)
}

/// A dial to a port of this machine on which nobody listens can, by chance, get that very port as its own and so
/// connect to itself (RFC 793, simultaneous open). The client would be shown its own bytes.
fn is_self_connected(socket: &socket2::Socket, endpoint: &Endpoint) -> io::Result<bool> {
    match endpoint {
        Endpoint::Ip(address) => Ok(socket.local_addr()?.as_socket() == Some(*address)),
        _ => Ok(false),
    }
}

fn is_retry(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted)
}

/// connect(2) goes on in the background. std has no kind for it.
const EINPROGRESS: i32 = rustix::io::Errno::INPROGRESS.raw_os_error();

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Ending, Peer};
    use futures_lite::future::{block_on, poll_once, zip};
    use std::future::poll_fn;
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};
    use std::sync::atomic::AtomicUsize;
    use std::thread;

    fn options() -> Options {
        Options { keepalive: None, buffers: Buffers::new(16 << 10, 4), io: crate::Io::Auto }
    }

    fn listening(unix_mode: Option<u32>) -> Listening {
        Listening { socket: options(), backlog: 8, unix_mode, dual_stack: false }
    }

    /// Every way to wait for sockets that there is here. The tests' own thread never carries any of them.
    fn watchers() -> [Watcher; 3] {
        [crate::Io::Std, crate::Io::Epoll, crate::Io::Uring].map(crate::runtime::watcher)
    }

    fn dial(endpoint: &Endpoint) -> io::Result<Arc<dyn Socket>> {
        dial_by(&Watcher::Reactor, endpoint)
    }

    fn dial_by(watcher: &Watcher, endpoint: &Endpoint) -> io::Result<Arc<dyn Socket>> {
        let stream = block_on(Stream::dial(endpoint, &options(), watcher))?;
        Ok(Arc::new(stream))
    }

    /// Our end of a connection, and a plain socket at the other.
    fn connected(watcher: &Watcher) -> (Arc<dyn Socket>, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("bound");
        let ours = dial_by(watcher, &Endpoint::Ip(address)).expect("it listens");
        (ours, listener.accept().expect("it was dialled").0)
    }

    fn reset(socket: TcpStream) {
        SockRef::from(&socket).set_linger(Some(Duration::ZERO)).expect("a socket");
    }

    /// Linux tells a reset once, to the reader or to the writer, and shows the other a clean end.
    #[test]
    fn a_reset_is_never_read_as_a_clean_end_whoever_hears_of_it_first() {
        for watcher in watchers() {
            for run in 0..500 {
                let (ours, mut theirs) = connected(&watcher);
                let theirs_sent = Arc::clone(&ours);
                let writer = thread::spawn(move || {
                    block_on(async {
                        let mut peer = Peer::new("writer", theirs_sent);
                        while peer.try_send(b"x").await.is_ok() {}
                    });
                });
                let reader =
                    thread::spawn(move || block_on(Peer::new("reader", ours).recv_to_end()));
                theirs.read_exact(&mut [0; 1]).expect("the writer writes");
                theirs.write_all(b"last words").expect("it is open");
                reset(theirs);
                writer.join().expect("no panic");
                let seen = reader.join().expect("no panic");
                assert!(seen.ending.is_reset(), "run {run}: {seen:?}");
            }
        }
    }

    #[test]
    fn dropped_as_it_is_a_socket_resets_and_disarmed_it_ends_cleanly() {
        for watcher in watchers() {
            for disarmed in [false, true] {
                let (ours, mut theirs) = connected(&watcher);
                if disarmed {
                    ours.disarm();
                }
                drop(ours);
                let read = theirs.read(&mut [0; 1]);
                assert_eq!(read.map_err(|error| error.kind()).ok(), disarmed.then_some(0));
            }
        }
    }

    #[test]
    fn many_chunks_of_any_size_arrive_in_order() {
        for watcher in watchers() {
            let (ours, mut theirs) = connected(&watcher);
            let chunks: Vec<Vec<u8>> = (1..100).map(|size| vec![size as u8; size * 100]).collect();
            let expected = chunks.concat();
            let sender = thread::spawn(move || {
                let mut chunks = chunks.into_iter().map(Chunk::from).collect();
                block_on(crate::socket::send_all(&*ours, &mut chunks, |_| {})).expect("it is open");
                block_on(crate::socket::finish(&*ours)).expect("it is open");
                ours
            });
            let mut got = Vec::new();
            theirs.read_to_end(&mut got).expect("a clean end");
            assert!(got == expected);
            drop(sender.join().expect("no panic"));
        }
    }

    /// Much of it finds no room, or not enough; nothing else ends a sleep meanwhile.
    #[test]
    fn small_messages_to_a_peer_with_little_room_arrive_in_order() {
        for watcher in watchers() {
            let (ours, mut theirs) = connected(&watcher);
            SockRef::from(&theirs).set_recv_buffer_size(256 << 10).expect("a socket");
            let sender = thread::spawn(move || {
                block_on(async {
                    let mut peer = Peer::new("ours", Arc::clone(&ours));
                    for number in 0..2000 {
                        peer.send(&[number as u8; 3000]).await;
                    }
                    crate::socket::finish(&*ours).await.expect("it is open");
                    peer.delivered().await;
                });
            });
            let mut got = Vec::new();
            theirs.read_to_end(&mut got).expect("a clean end");
            let expected: Vec<u8> = (0..2000).flat_map(|number| vec![number as u8; 3000]).collect();
            assert!(got == expected);
            sender.join().expect("no panic");
        }
    }

    #[test]
    fn no_chunk_is_longer_than_was_asked_for() {
        for watcher in watchers() {
            for size in [16, 4 << 10, 16 << 10] {
                let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
                let address = Endpoint::Ip(listener.local_addr().expect("bound"));
                let options = Options { buffers: Buffers::new(size, 4), ..options() };
                let ours = block_on(Stream::dial(&address, &options, &watcher)).expect("open");
                let mut theirs = listener.accept().expect("it was dialled").0;
                let sent: Vec<u8> = (0..100_000).map(|number| number as u8).collect();
                theirs.write_all(&sent).expect("there is room");
                drop(theirs);
                let mut came = Vec::new();
                while let Some(chunk) = block_on(crate::socket::recv(&ours)).expect("no reset") {
                    assert!(chunk.len() <= size, "{} of {size}", chunk.len());
                    came.extend_from_slice(&chunk);
                }
                assert!(came == sent);
            }
        }
    }

    #[test]
    fn a_recv_that_is_dropped_loses_nothing() {
        for watcher in watchers() {
            block_on(async {
                let (ours, theirs) = connected(&watcher);
                let mut theirs = theirs;
                for byte in 0..100 {
                    // Sometimes it is ready by now and sometimes it is not.
                    theirs.write_all(&[byte]).expect("it is open");
                    let early = poll_once(poll_fn(|cx| ours.poll_recv(cx))).await;
                    let chunk = match early {
                        Some(chunk) => chunk,
                        None => crate::socket::recv(&*ours).await,
                    };
                    assert_eq!(chunk.expect("it is open").as_deref(), Some(&[byte][..]));
                }
            });
        }
    }

    #[test]
    fn delivered_waits_until_the_peer_has_room_for_all() {
        for watcher in watchers() {
            block_on(async {
                let (ours, theirs) = connected(&watcher);
                let mut peer = Peer::new("ours", ours);
                let sent = AtomicUsize::new(0);
                let block = vec![0; 64 << 10];
                // Until the system takes no more.
                while poll_once(peer.send(&block)).await.is_some() {
                    sent.fetch_add(block.len(), Ordering::SeqCst);
                }
                let mut delivered = Box::pin(peer.delivered());
                assert!(poll_once(&mut delivered).await.is_none());
                let reader = thread::spawn(move || {
                    let mut theirs = theirs;
                    let mut count = 0;
                    let mut block = vec![0; 64 << 10];
                    loop {
                        match theirs.read(&mut block) {
                            Ok(0) => return (count, false),
                            Ok(read) => count += read,
                            Err(_) => return (count, true),
                        }
                    }
                });
                delivered.await;
                peer.reset();
                let (count, was_reset) = reader.join().expect("no panic");
                assert!(count >= sent.into_inner() && was_reset);
            });
        }
    }

    #[test]
    fn delivered_ends_when_the_peer_has_gone() {
        for watcher in watchers() {
            block_on(async {
                let (ours, theirs) = connected(&watcher);
                let mut peer = Peer::new("ours", ours);
                let block = vec![0; 64 << 10];
                while poll_once(peer.try_send(&block)).await.is_some() {}
                let mut delivered = Box::pin(peer.delivered());
                assert!(poll_once(&mut delivered).await.is_none());
                reset(theirs);
                delivered.await;
            });
        }
    }

    #[test]
    fn nobody_there_is_refused_and_a_name_is_not_dialled() {
        let held = socket2::Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
        held.bind(&"127.0.0.1:0".parse::<std::net::SocketAddr>().expect("an address").into())
            .expect("a free port");
        let address = held.local_addr().expect("bound").as_socket().expect("an IP address");
        let error = dial(&Endpoint::Ip(address)).err().expect("nobody listens");
        assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
        let name = Endpoint::Name { host: "localhost".into(), port: 1 };
        assert_eq!(dial(&name).err().expect("a name").kind(), ErrorKind::InvalidInput);
    }

    /// A folder for unix sockets, gone at its end.
    struct Folder(PathBuf);

    impl Folder {
        fn new() -> Folder {
            static COUNT: AtomicUsize = AtomicUsize::new(0);
            let number = COUNT.fetch_add(1, Ordering::SeqCst);
            let name = format!("trunkline-net-{}-{number}", std::process::id());
            let path = std::env::temp_dir().join(name);
            fs::create_dir_all(&path).expect("a folder for the test");
            Folder(path)
        }

        fn path(&self) -> PathBuf {
            self.0.join("socket")
        }

        fn bind(&self, mode: Option<u32>) -> io::Result<Listener> {
            Listener::bind(&Endpoint::Unix(self.path()), &listening(mode), Watcher::Reactor)
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn a_unix_listener_takes_clients_and_its_file_goes_with_it() {
        let folder = Folder::new();
        let listener = folder.bind(None).expect("a free path");
        let client = dial(&Endpoint::Unix(folder.path())).expect("it listens");
        let (server, from) = listener.try_accept().expect("a client waits");
        assert_eq!(from, Endpoint::Unix(folder.path()));
        let again = listener.try_accept().map(drop).expect_err("no other client");
        assert_eq!(again.kind(), ErrorKind::WouldBlock);
        block_on(async {
            let (mut client, mut server) =
                (Peer::new("client", client), Peer::new("server", server));
            client.send(b"hello").await;
            client.fin();
            let seen = server.recv_to_end().await;
            assert_eq!((&seen.bytes[..], seen.ending), (&b"hello"[..], Ending::Fin));
            zip(server.send(b"world"), async { assert_eq!(client.recv_exact(5).await, b"world") })
                .await;
        });
        drop(listener);
        assert!(!folder.path().exists());
    }

    #[test]
    fn a_file_that_a_dead_process_left_is_replaced() {
        let folder = Folder::new();
        drop(std::os::unix::net::UnixListener::bind(folder.path()).expect("a free path"));
        assert!(folder.path().exists(), "std leaves its file behind");
        let listener = folder.bind(None).expect("the file is stale");
        assert!(dial(&Endpoint::Unix(folder.path())).is_ok());
        drop(listener);
    }

    #[test]
    fn a_path_on_which_somebody_listens_is_in_use_and_stays_theirs() {
        let folder = Folder::new();
        let first = folder.bind(None).expect("a free path");
        let error = folder.bind(None).err().expect("it is taken");
        assert_eq!(error.kind(), ErrorKind::AddrInUse);
        assert!(dial(&Endpoint::Unix(folder.path())).is_ok());
        drop(first);
    }

    #[test]
    fn a_file_that_is_no_socket_is_left_alone_and_named() {
        let folder = Folder::new();
        fs::write(folder.path(), "precious").expect("a folder");
        let error = folder.bind(None).err().expect("it is a file");
        assert!(error.to_string().contains("is not a socket"), "{error}");
        assert_eq!(fs::read_to_string(folder.path()).expect("it is there"), "precious");
    }

    #[test]
    fn a_file_that_another_process_put_there_since_stays() {
        let folder = Folder::new();
        let listener = folder.bind(None).expect("a free path");
        fs::rename(folder.path(), folder.0.join("old")).expect("a file");
        fs::write(folder.path(), "of another").expect("a folder");
        drop(listener);
        assert!(folder.path().exists());
    }

    #[test]
    fn the_file_gets_the_permissions_that_were_asked_for() {
        let folder = Folder::new();
        for mode in [0o600, 0o666] {
            let listener = folder.bind(Some(mode)).expect("a free path");
            let data = fs::metadata(folder.path()).expect("it is there");
            assert_eq!(data.permissions().mode() & 0o777, mode);
            drop(listener);
        }
    }

    #[test]
    fn small_writes_are_not_held_back_on_either_side() {
        block_on(async {
            let options = options();
            let any = Endpoint::Ip(([127, 0, 0, 1], 0).into());
            let listener =
                Listener::bind(&any, &listening(None), Watcher::Reactor).expect("a free port");
            let dialled = Stream::dial(listener.endpoint(), &options, &Watcher::Reactor)
                .await
                .expect("it listens");
            poll_fn(|cx| listener.poll_waiting(cx)).await.expect("a client waits");
            let (accepted, _) = listener.ready.socket().accept().expect("a client waits");
            for socket in [dialled.socket(), &accepted] {
                assert!(socket.tcp_nodelay().expect("a TCP socket"));
            }
        });
    }

    #[test]
    fn a_unix_backend_whose_backlog_is_full_is_waited_for() {
        block_on(async {
            let folder = std::env::temp_dir().join(format!("trunkline-net-{}", std::process::id()));
            fs::create_dir_all(&folder).expect("a folder");
            let path = folder.join("full");
            let endpoint = Endpoint::Unix(path.clone());
            let options = options();
            let listener = Listener::bind(&endpoint, &listening(None), Watcher::Reactor)
                .expect("a path of ours");
            let mut waiting = Vec::new();
            let mut last = loop {
                let mut dial = Box::pin(Stream::dial(&endpoint, &options, &Watcher::Reactor));
                match poll_once(&mut dial).await {
                    Some(dialled) => waiting.push(dialled.expect("it listens")),
                    None => break dial,
                }
            };
            assert!(poll_once(&mut last).await.is_none(), "the backlog is full");
            listener.try_accept().expect("a client waits");
            last.await.expect("there is room now");
            fs::remove_dir_all(&folder).expect("ours");
        });
    }
}
